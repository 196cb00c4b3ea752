# SPDX-License-Identifier: Apache-2.0
# A static binary on an empty image; it runs as a user without rights.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" \
    -o /out/cicada ./cmd/cicada && mkdir -p /out/data /out/bucket

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/cicada /cicada
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/bucket /bucket
USER 65532:65532
ENV CICADA_DATA_DIR=/data CICADA_BUCKET=file:///bucket
VOLUME ["/data", "/bucket"]
EXPOSE 7170
HEALTHCHECK --interval=10s --timeout=3s CMD ["/cicada", "status", "-o", "jsonl"]
ENTRYPOINT ["/cicada"]
CMD ["serve"]
