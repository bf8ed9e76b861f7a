# The command line with torch's own CUDA libraries; the host needs the driver and NVIDIA's container toolkit:
#   docker build -f containers/cuda.Dockerfile -t twinray:cuda .
#   docker run --rm --gpus all --shm-size 8g twinray:cuda --version
FROM python:3.11-slim
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir '/source[dicom]' --constraint /source/constraints.txt \
 && rm -rf /source/* \
 && useradd --create-home twinray
USER twinray
WORKDIR /home/twinray
ENTRYPOINT ["twinray"]
