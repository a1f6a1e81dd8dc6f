# A model, served: docker build -f deploy/serve.Dockerfile -t pronk-serve . ; then
# docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v "$PWD/runs/first:/model:ro" pronk-serve --token SECRET
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 pronk
COPY dist/*.whl constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/pronk-*.whl)[serve]" && rm /tmp/*
USER pronk
ENV PRONK_CACHE=/tmp/pronk
EXPOSE 8000
ENTRYPOINT ["pronk", "serve", "/model", "--host", "0.0.0.0"]
CMD ["--allow-anyone"]
