# Training: docker build -f deploy/train.Dockerfile -t pronk-train . ; then
# docker run --rm -v "$PWD/photos:/photos:ro" -v "$PWD/runs:/runs" pronk-train /photos --out /runs/first --weights offline
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 pronk && mkdir /runs /cache && chown pronk /runs /cache
COPY dist/*.whl constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/pronk-*.whl)[train]" && rm /tmp/*
USER pronk
ENV PRONK_CACHE=/cache
ENTRYPOINT ["pronk", "train"]
