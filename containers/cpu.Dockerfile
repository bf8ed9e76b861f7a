# The command line without CUDA libraries:  docker build -f containers/cpu.Dockerfile -t twinray:cpu .
FROM docker.io/library/python:3.11-slim-bookworm
# whoever runs it, also with --user and without a home
ENV MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt uv \
 && UV_TORCH_BACKEND=cpu uv pip install --system --no-cache '/source[dicom]' --constraint /source/constraints.txt \
 && rm -rf /source/* \
 && useradd --uid 10001 --create-home twinray
USER 10001
WORKDIR /home/twinray
ENTRYPOINT ["twinray"]
