// The file of setting cluster/kubeadm-patch: what a person wants kubeadm to be given otherwise, by kind.

import { KitError } from '#lib/errors.ts'

export const KUBEADM_KINDS = [
  'InitConfiguration',
  'ClusterConfiguration',
  'JoinConfiguration',
  'KubeletConfiguration',
  'KubeProxyConfiguration',
] as const
export type KubeadmKind = (typeof KUBEADM_KINDS)[number]

export type Json = string | number | boolean | null | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [key: string]: Json
}

export type KubeadmPatch = Readonly<Partial<Record<KubeadmKind, JsonObject>>>

const BY_TOKEN = 'joins go by the tokens of this server alone'
const BY_MACHINE = "it comes from the machine's own files"

/** What it may not say, by kind and path, and why. */
const FIXED: Readonly<Record<KubeadmKind, Readonly<Record<string, string>>>> = {
  InitConfiguration: {
    bootstrapTokens: BY_TOKEN,
    certificateKey: 'control planes get their keys from this server',
    dryRun: 'nothing would come about',
    skipPhases: 'this server says which phases are skipped',
    'localAPIEndpoint.advertiseAddress': "it is the machine's address",
    'nodeRegistration.name': 'it is the hostname',
    'nodeRegistration.taints': BY_MACHINE,
  },
  ClusterConfiguration: {
    kubernetesVersion: 'it is the one of the image',
    clusterName: 'that is the setting cluster/name',
    controlPlaneEndpoint: 'that is the setting cluster/api-endpoint',
    certificatesDir: 'machines keep them at /etc/kubernetes/pki',
    'networking.podSubnet': 'that is the setting cluster/pod-subnet',
    'networking.serviceSubnet': 'that is the setting cluster/service-subnet',
    'networking.dnsDomain': 'that is the setting cluster/dns-domain',
    'etcd.external': 'etcd runs on the control planes',
    'etcd.local.dataDir': 'it is kept at /var/lib/etcd over a powerwash',
  },
  JoinConfiguration: {
    'discovery.bootstrapToken': BY_TOKEN,
    'discovery.tlsBootstrapToken': BY_TOKEN,
    'discovery.file': BY_TOKEN,
    caCertPath: 'machines keep it at /etc/kubernetes/pki',
    controlPlane: "whether it is a control plane is in the machine's file kubernetes",
    dryRun: 'nothing would come about',
    skipPhases: 'all of them are needed',
    'nodeRegistration.name': 'it is the hostname',
    'nodeRegistration.taints': BY_MACHINE,
  },
  KubeletConfiguration: {},
  KubeProxyConfiguration: {},
}

/** Throws KitError `invalid-input` with everything that is wrong. */
export function parseKubeadmPatch(text: string): KubeadmPatch {
  const content = readJson(text)
  if (!isObject(content)) throw refused(['it is no object by kind'])
  const problems = Object.entries(content).flatMap(([kind, patch]) => problemsOf(kind, patch))
  if (problems.length > 0) throw refused(problems)
  return content as KubeadmPatch
}

function problemsOf(kind: string, patch: Json): readonly string[] {
  const known = KUBEADM_KINDS.find((each) => each === kind)
  if (known === undefined) return [`${kind} is none of ${KUBEADM_KINDS.join(', ')}`]
  if (!isObject(patch)) return [`${kind} is no object`]
  const fixed = {
    apiVersion: 'it follows from the version of Kubernetes',
    kind: 'it is the kind',
    ...FIXED[known],
  }
  return Object.entries(fixed).flatMap(([path, reason]) =>
    hasPath(patch, path.split('.')) ? [`it may not set ${kind}.${path}: ${reason}`] : [],
  )
}

/**
 * Objects are merged. Lists grow: what has a name that is there already is merged with it, and nothing is there twice. null
 * takes away.
 */
export function mergeJson(base: JsonObject, patch: JsonObject): JsonObject {
  const merged = new Map(Object.entries(base))
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key)
    else merged.set(key, mergeValue(merged.get(key), value))
  }
  return Object.fromEntries(merged)
}

function mergeValue(base: Json | undefined, patch: Json): Json {
  if (isObject(base) && isObject(patch)) return mergeJson(base, patch)
  if (isList(base) && isList(patch)) return mergeLists(base, patch)
  return patch
}

function mergeLists(base: readonly Json[], patch: readonly Json[]): readonly Json[] {
  const merged = [...base]
  for (const item of patch) {
    const name = nameOf(item)
    const place = merged.findIndex((each) =>
      name === undefined ? JSON.stringify(each) === JSON.stringify(item) : nameOf(each) === name,
    )
    if (place < 0) merged.push(item)
    else merged[place] = mergeValue(merged[place], item)
  }
  return merged
}

function nameOf(item: Json): string | undefined {
  const name = isObject(item) ? item['name'] : undefined
  return typeof name === 'string' ? name : undefined
}

function hasPath(object: JsonObject, path: readonly string[]): boolean {
  const [first = '', ...rest] = path
  if (!Object.hasOwn(object, first)) return false
  const value = object[first]
  // Whatever else than an object stands there would take away what is below it.
  return rest.length === 0 || !isObject(value) || hasPath(value, rest)
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !isList(value)
}

function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value)
}

function readJson(text: string): Json {
  try {
    return JSON.parse(text) as Json
  } catch {
    // Its message shows a piece of the file.
    throw refused(['it is not JSON'])
  }
}

function refused(problems: readonly string[]): KitError {
  return new KitError(
    'invalid-input',
    `Cannot use the file of cluster/kubeadm-patch: ${problems.join('; ')}`,
    {
      fix: 'write it as {"ClusterConfiguration": {…}}; docs/kubernetes.md says what it may change',
    },
  )
}
