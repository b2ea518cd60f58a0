// The settings of the server about Kubernetes: where it comes from, what the cluster is like, and the registry.

import { DOMAIN, OPTIONAL_PATH, PATH, rule } from './config-rule.ts'
import { integer, ipv4Subnet, matching, oneOf, optional } from './config-shapes.ts'

export const CLUSTER_CONFIG = {
  'kubernetes/source': rule({
    meaning:
      "where the image's Kubernetes comes from ([image.md](image.md)); auto: packages where their repository answers, else none",
    expected: 'auto, none, packages, directory or debian-source',
    shape: oneOf('auto', 'none', 'packages', 'directory', 'debian-source'),
    fallback: 'auto',
  }),
  'kubernetes/version': rule({
    meaning: 'the minor that is taken from there, or a release of it',
    expected: 'a minor such as v1.33, a release such as v1.33.4, or empty',
    shape: optional(matching(/^v?\d{1,3}\.\d{1,3}(?:\.\d{1,3})?$/)),
    fallback: '',
    fallbackText: 'of packages the minor in `assets/kubernetes/default-minor`, else what the source has',
  }),
  'kubernetes/repository': rule({
    meaning: 'another repository for the source packages; `{minor}` in it stands for `v1.33`',
    expected: 'a URL (http:// or https://), an absolute path, or empty',
    shape: optional(matching(/^(?:https?:\/\/\S+|\/[^\0]*)$/)),
    fallback: '',
    fallbackText: "the community's",
  }),
  'kubernetes/repository-key': rule({
    meaning: 'the file of the public key by which that repository is known',
    ...OPTIONAL_PATH,
  }),
  'kubernetes/directory': rule({
    meaning: 'a folder with the binaries and archives of container images, for the source directory',
    ...OPTIONAL_PATH,
  }),
  'kubernetes/cri': rule({
    meaning: 'what runs containers in the image',
    expected: 'containerd or cri-o',
    shape: oneOf('containerd', 'cri-o'),
    fallback: 'containerd',
  }),
  'kubernetes/oci-runtime': rule({
    meaning: 'what starts one container',
    expected: 'runc or crun',
    shape: oneOf('runc', 'crun'),
    fallback: 'runc',
  }),
  'cluster/name': rule({
    meaning: 'the name of the cluster, in kubeconfigs',
    expected: 'lower-case letters, digits and dashes, at most 63',
    shape: matching(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/),
    fallback: 'kateskit',
  }),
  'cluster/api-endpoint': rule({
    meaning:
      "where the cluster's API is: a DNS name or an address that stays, or one that kube-vip moves; counts when the cluster is made",
    expected: 'host or host:port, or empty',
    shape: optional(matching(new RegExp(`${DOMAIN.source.slice(0, -1)}(?::\\d{1,5})?$`, 'i'))),
    fallback: '',
    fallbackText: "the first control plane's address",
  }),
  'cluster/kube-vip': rule({
    meaning: 'an image of kube-vip: control planes run it with the address of cluster/api-endpoint',
    expected: 'the reference of a container image, or empty',
    shape: optional(matching(/^[a-z0-9][\w.:/@-]{0,254}$/)),
    fallback: '',
  }),
  'cluster/pod-subnet': rule({
    meaning: 'the addresses of pods; each node has a /24 of it',
    expected: 'an IPv4 subnet of /8 to /22, such as 10.244.0.0/16',
    shape: ipv4Subnet(8, 22),
    fallback: '10.244.0.0/16',
  }),
  'cluster/service-subnet': rule({
    meaning: 'the addresses of services',
    expected: 'an IPv4 subnet of /12 to /24, such as 10.96.0.0/12',
    shape: ipv4Subnet(12, 24),
    fallback: '10.96.0.0/12',
  }),
  'cluster/dns-domain': rule({
    meaning: 'the domain of services',
    expected: 'a domain name such as cluster.local',
    shape: matching(DOMAIN),
    fallback: 'cluster.local',
  }),
  'cluster/kubeadm-patch': rule({
    meaning: 'a JSON file merged over what kubeadm is given, by kind: `{"ClusterConfiguration": {…}}`',
    ...OPTIONAL_PATH,
  }),
  'cluster/passphrase-file': rule({
    meaning: "the cluster's keys are encrypted at rest with what is in this file",
    ...OPTIONAL_PATH,
  }),
  'cluster/ca-directory': rule({
    meaning: 'the `pki/` folder of a cluster that exists already: its CAs are taken instead of new ones',
    ...OPTIONAL_PATH,
  }),
  'cluster/snapshots-keep': rule({
    meaning: 'how many snapshots of etcd are kept',
    expected: 'a number from 1 to 10000',
    shape: integer(1, 10_000),
    fallback: '48',
  }),
  'cluster/snapshots-days': rule({
    meaning: 'how long a snapshot of etcd is kept; the newest one always is',
    expected: 'a number of days from 1 to 3650',
    shape: integer(1, 3_650),
    fallback: '30',
  }),
  'registry/directory': rule({
    meaning: 'where the registry keeps container images',
    ...PATH,
    fallback: 'var/registry',
  }),
  'registry/import': rule({
    meaning: 'a folder of archives of container images that are imported at start',
    ...OPTIONAL_PATH,
    fallbackText: "those that the image's Kubernetes was built with by `npm start`, if any",
  }),
} as const
