# capture's image: a static binary, CA certificates and time zones; no shell and no package manager.
#
#   docker build --build-arg VERSION=1.2.3 --build-arg COMMIT=$(git rev-parse HEAD) -t capture .
#   docker buildx build --platform linux/amd64,linux/arm64 …
#
# The build stage runs on the builder's platform and compiles for the target platform. Docker's classic builder sets neither
# BUILDPLATFORM nor TARGETARCH; both platforms are then that of the machine.
FROM --platform=${BUILDPLATFORM:-linux} golang:1.26-bookworm AS build
WORKDIR /src
ARG TARGETARCH
ENV CGO_ENABLED=0 GOOS=linux GOARCH=${TARGETARCH} GOFLAGS="-trimpath -buildvcs=false"

# Modules are compiled before the source is copied, so a change of the source does not compile them again. net/http is in
# the list because it uses much of the standard library. A test compares this list with the imports in the code.
COPY go.mod go.sum ./
RUN go mod download
RUN go build \
    github.com/Azure/azure-sdk-for-go/sdk/azcore \
    github.com/Azure/azure-sdk-for-go/sdk/azcore/policy \
    github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming \
    github.com/Azure/azure-sdk-for-go/sdk/azidentity \
    github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob \
    github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob \
    github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container \
    github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas \
    github.com/alecthomas/kong \
    github.com/cenkalti/backoff/v5 \
    github.com/go-json-experiment/json/jsontext \
    github.com/hashicorp/go-hclog \
    github.com/jackc/pglogrepl \
    github.com/jackc/pgx/v5 \
    github.com/jackc/pgx/v5/pgconn \
    github.com/jackc/pgx/v5/pgproto3 \
    github.com/klauspost/compress/gzip \
    github.com/klauspost/compress/zstd \
    github.com/minio/minio-go/v7 \
    github.com/minio/minio-go/v7/pkg/credentials \
    github.com/prometheus/client_golang/prometheus \
    github.com/prometheus/client_golang/prometheus/collectors \
    github.com/prometheus/client_golang/prometheus/promhttp \
    github.com/yuin/goldmark \
    github.com/yuin/goldmark/ast \
    github.com/yuin/goldmark/extension \
    github.com/yuin/goldmark/extension/ast \
    github.com/yuin/goldmark/parser \
    github.com/yuin/goldmark/text \
    github.com/yuin/goldmark/util \
    golang.org/x/sync/errgroup \
    golang.org/x/sync/semaphore \
    golang.org/x/sys/unix \
    golang.org/x/term \
    golang.org/x/time/rate \
    gopkg.in/natefinch/lumberjack.v2 \
    net/http

# A new named volume gets the owner and mode of the folder that it is mounted on. Readers need the group 65532.
# The folders posix/ and right/ only repeat the time zones.
RUN mkdir -p /image/app/data/fallback /image/app/logs/usage /image/app/logs/errors /image/etc/ssl/certs /image/usr/share \
 && chmod 0750 /image/app/data/fallback /image/app/logs/usage /image/app/logs/errors \
 && echo 'capture:x:65532:65532:capture:/app:/sbin/nologin' >/image/etc/passwd \
 && echo 'capture:x:65532:' >/image/etc/group \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp -R /usr/share/zoneinfo /image/usr/share/ \
 && rm -rf /image/usr/share/zoneinfo/posix /image/usr/share/zoneinfo/right \
 && test -s /image/usr/share/zoneinfo/Europe/Berlin

COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
# After a blank or a quote in VERSION or COMMIT, the linker would take the rest as further flags.
RUN case "$VERSION$COMMIT" in *[!A-Za-z0-9.+_-]*) echo 'VERSION and COMMIT may only have letters, digits and . + _ -' >&2; exit 2 ;; esac \
 && mkdir -p /image/usr/local/bin \
 && go build -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /image/usr/local/bin/capture ./cmd/capture

FROM scratch
COPY --from=build /image/etc /etc
COPY --from=build /image/usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build --chown=65532:65532 /image/app /app
COPY --from=build /image/usr/local/bin/capture /usr/local/bin/capture
# The daily comparison of a very large table sorts in a temporary file, and scratch has no /tmp.
ENV PATH=/usr/local/bin CAPTURE_LISTEN=0.0.0.0:8080 TMPDIR=/app/data/fallback
WORKDIR /app
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Healthy means that feedback.json follows the table. Docker does not restart unhealthy containers; capture reconnects.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/capture", "status"]
ENTRYPOINT ["/usr/local/bin/capture"]
CMD ["run"]
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="capture" \
      org.opencontainers.image.description="Keeps a live JSON fallback of one Postgres table" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
