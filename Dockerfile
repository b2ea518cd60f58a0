# The server in a container, for a host that has an engine and nothing else. Built with `docker build -t kateskit .`
#
# DHCP is broadcast: it reaches a container only on the host's own network. So the container runs with host networking,
# with the right to open low ports and sockets tied to an interface, and with nothing else:
#
#   docker run --network host --cap-drop ALL --cap-add NET_BIND_SERVICE --cap-add NET_RAW \
#     -e KATESKIT_DHCP_INTERFACE=eth0 \
#     -v /srv/kateskit/profiles:/srv/kateskit/profiles -v /srv/kateskit/var:/srv/kateskit/var \
#     -v /srv/kateskit/certs:/srv/kateskit/certs \
#     -v "$HOME/.cache/kateskit/images:/srv/kateskit/images:ro" kateskit
#
# The base image is built outside (sudo npm start, or bin/kateskit setup --for serve): that takes mounts and namespaces,
# which a server that answers a whole network should not be given. Engines on macOS and Windows run their containers in
# a virtual machine, whose host network is not the LAN: there it cannot work.

# The file system is Debian's, as everywhere else here; Node 24 comes with the modules, so the stage's npm may be any.
FROM node:24-trixie-slim AS modules
WORKDIR /srv/kateskit
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM debian:trixie-slim
# ip(8): what the server knows of the network interface comes from it.
RUN apt-get update && apt-get install --yes --no-install-recommends iproute2 && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/kateskit
COPY --from=modules /srv/kateskit/node_modules node_modules
COPY package.json package.json
COPY bin bin
COPY server server
COPY boot boot
COPY profiles profiles
ENV KATESKIT_IMAGES_IMPORT=/srv/kateskit/images
ENTRYPOINT ["/srv/kateskit/bin/kateskit"]
CMD ["serve"]
