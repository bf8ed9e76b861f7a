# The command line with torch's own CUDA libraries; the host needs the driver and NVIDIA's container toolkit:
#   docker build -f containers/cuda.Dockerfile -t twinray:cuda .
#   docker run --rm --gpus all --shm-size 8g twinray:cuda --version
FROM docker.io/library/python:3.11-slim-bookworm
# whoever runs it, also with --user and without a home
ENV MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir '/source[dicom]' --constraint /source/constraints.txt \
 && rm -rf /source/* \
 && useradd --uid 10001 --create-home twinray
USER 10001
WORKDIR /home/twinray
ENTRYPOINT ["twinray"]
