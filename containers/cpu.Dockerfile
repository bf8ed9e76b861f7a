# The command line without CUDA libraries:  docker build -f containers/cpu.Dockerfile -t twinray:cpu .
FROM python:3.11-slim
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir uv \
 && UV_TORCH_BACKEND=cpu uv pip install --system --no-cache '/source[dicom]' --constraint /source/constraints.txt \
 && rm -rf /source/* \
 && useradd --create-home twinray
USER twinray
WORKDIR /home/twinray
ENTRYPOINT ["twinray"]
