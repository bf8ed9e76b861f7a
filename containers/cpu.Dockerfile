# The command line without CUDA libraries:  docker build -f containers/cpu.Dockerfile -t twinray:cpu .
FROM python:3.11-slim
COPY . /source
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir '/source[dicom]' --constraint /source/constraints.txt \
 && rm -rf /source \
 && useradd --create-home twinray
USER twinray
WORKDIR /home/twinray
ENTRYPOINT ["twinray"]
