# The HTTP service with its models, see docs/deploy.md.
#
#   docker build -t keras-maskrcnn .
#   docker run --rm -p 8000:8000 -v "$PWD/models:/models:ro" keras-maskrcnn --model penn.keras
FROM python:3.12-slim

# Extras of pyproject.toml, such as serve,onnx.
ARG EXTRAS=serve

# With PYTHONSAFEPATH, no module is imported from the folder of models.
ENV PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3

# The requirements have a layer of their own, which a change of the package does not rebuild.
WORKDIR /source
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY keras_maskrcnn ./keras_maskrcnn
RUN pip install --no-cache-dir ".[${EXTRAS}]"

RUN useradd --uid 1000 --create-home serve
USER 1000:1000
WORKDIR /models

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "keras_maskrcnn", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model", "nuclei"]
