# One image for every role of docker-compose.yml: web, workers, scheduler and one-time commands.
FROM python:3.11-slim AS build
# PyTorch's ordinary Linux wheel brings gigabytes of CUDA libraries. Its CPU build comes from the
# CPU wheel index that PyTorch's install page names: docker build --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /app
RUN python -m venv /app/.venv
COPY requirements.txt .
RUN /app/.venv/bin/pip install --no-cache-dir -r requirements.txt

FROM python:3.11-slim
# lightgbm and xgboost need the OpenMP library.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home tippers
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
COPY . .
# Every part is a service of its own here; the state folder only holds what one container scribbles.
RUN mkdir /state && chown tippers /state
ENV PATH="/app/.venv/bin:$PATH" PYTHONUNBUFFERED=1 TIPPERS_HOME=/state
USER tippers
EXPOSE 8000
CMD ["gunicorn", "tippers.wsgi", "--bind", "0.0.0.0:8000", "--worker-class", "gthread", \
     "--workers", "2", "--threads", "8", "--preload", "--no-control-socket"]
