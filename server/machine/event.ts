// The history: one table of everything that can happen, each kind with what it means.

import type { Mac } from '#lib/mac.ts'

export const EVENT_KINDS = {
  'server-started': 'the server answers',
  'server-stopped': 'the server was asked to stop',
  'machine-discovered': 'a MAC nobody knew was seen',
  'dhcp-offered': 'a network boot was offered (once per boot and client, not per packet)',
  'dhcp-refused': 'a request got a NAK or no answer, and why',
  'dhcp-leased': 'an address was leased for the first time',
  'dhcp-declined': 'a client found its address in use',
  'dhcp-pool-empty': 'no address is left',
  'unknown-architecture': 'firmware of a kind there is no loader for asked to boot',
  'boot-loop': 'one machine asks for the loader again and again; it is left alone for a while',
  'loader-sent': 'a network boot loader was handed out whole',
  'boot-script-sent': 'a boot script was handed out; data.plan says which plan',
  'kernel-sent': 'kernel and initrd were handed out whole',
  'step-started': 'a step on the machine began; data.step names it',
  'step-done': 'a step on the machine ended well; data.seconds',
  'step-failed': 'a step on the machine failed; data.log has its last lines',
  'checked-in': 'a machine changed its state; data.from, data.to',
  'check-in-refused': 'a check-in was not believed, and why',
  'server-certificate':
    'the server shows another certificate from now on, and why; data.name when it is for https/name',
  'certificate-failed': 'a certificate could not be had, read or renewed, and why; data.name as above',
  'cluster-ca-expires': 'a CA of the cluster comes to its end, or has come to it; data.ca, data.until',
  'identity-issued': 'a machine proved who it is and got a certificate; data.tier, data.by',
  'certificate-renewed': 'a machine that was known already got a new certificate; data.tier',
  'identity-conflict': 'a known machine came with another key, or a known key on another machine; data.key',
  'identity-refused': 'a machine was not taken for what it says, and why; data.key',
  'identity-forgotten': 'a person made the server forget the key of a machine; data.by',
  'pairing-waiting': 'a machine shows a code on its console and waits for a person; data.replace',
  'pairing-failed': 'a code was wrong; data.left says how many tries are left',
  'tpm-approved': 'a person approved a TPM; data.ek, data.by',
  'tpm-withdrawn': 'the approval of a TPM was taken back; data.ek',
  'wrong-machine': "a machine that had proved who it is asked for what is another's; data.by",
  'disk-refused': 'no disk of a machine may be written, and why; data.lines has all of it',
  installed: 'a machine runs from its disk for the first time since that was made new',
  'slot-good': 'a slot passed its trial; data.slot, data.image',
  'slot-bad': 'a slot will not be started any more, and why; data.slot, data.image',
  updated: 'a machine has a newer or older image than before for good; data.from, data.to',
  'update-failed': 'an image failed on a machine, which runs another one again; data.image',
  'image-quarantined': 'an image failed on a machine, so no other one gets it; data.image',
  'quarantine-lifted': 'a person lets an image be used again; data.image',
  'channel-promoted': 'a channel points at another image; data.channel, data.image',
  'channel-paused': 'a channel gives no updates for now; data.channel',
  'channel-resumed': 'a channel gives updates again; data.channel',
  'machine-pinned': 'a machine is kept on one image, whatever its channel says; data.image',
  'machine-unpinned': 'a machine follows its channel again',
  'update-started': 'a machine may restart into a new image; data.image',
  'rollout-halted': 'the update of a channel stopped after failures; data.channel, data.image',
  'rollout-done': 'every machine of a channel that was seen lately has its image; data.channel, data.image',
  'lock-released': 'a person gave back the update lock of another tool; data.channel, data.holder',
  'lock-expired': 'another tool kept the update lock for a day; data.channel, data.holder',
  'powerwash-requested': 'the next netboot of a machine makes it new; data.persistence',
  'powerwash-cancelled': 'a powerwash was taken back before it began',
  'powerwash-begun': 'the disk of an installed machine is being made new; data.plan',
  'role-assigned': 'a machine got a role',
  'profile-changed': 'the files of a layer changed',
  'profile-broken': 'a layer cannot be read; its last good value stays in force',
  'profile-mended': 'a layer can be read again',
  'bundle-changed': 'a machine has a new overlay bundle',
  'bundle-applied':
    'a running machine took over its new bundle; data.reboot says why a reboot is still needed',
  'secrets-sent': 'a machine was given its secret files; data.boot',
  'secrets-refused': 'a machine asked for its secret files and was not given them, and why; data.boot',
  'cluster-founding': 'a machine is about to make the cluster; data.cluster',
  'cluster-up': 'the API of the cluster answered after it was made; data.cluster',
  'cluster-adopted': 'a person gave this server a cluster that was there before; data.cluster, data.by',
  'cluster-forgotten':
    'a person made this server forget the cluster, which was not touched; data.cluster, data.by',
  'kubeconfig-made': 'a person was given a kubeconfig of their own; data.by, data.days',
  'node-granted': 'a machine was given its part in the cluster; data.action, data.boot',
  'node-refused': 'a machine asked for its part in the cluster and was not given it, and why; data.boot',
  'node-step': 'how a machine gets on with its part in the cluster; data.action, data.step',
  'node-joined': 'kubeadm is done on a machine; data.action',
  'node-failed': 'a machine cannot take its part in the cluster, and why; data.action, data.step',
  'node-ready': 'the node of a machine is Ready after its grant, which is closed; data.action',
  'node-marks-failed': 'labels or taints of a node could not be set, and why',
  'kubelet-approved': 'the certificate that a kubelet asked for was approved; data.request',
  'kubelet-denied': 'a request for a certificate with one of our tokens was denied, and why; data.request',
  'node-turned-away':
    'the Node of a machine that was removed was there again; data.deleted, which is false in an adopted cluster',
  'node-drained': 'the node of a machine was drained, so that it may restart',
  'node-uncordoned': 'the node of a machine takes pods again after its restart',
  'restart-held': 'a machine may not restart for its update yet, because of the cluster, and why',
  'etcd-snapshot-kept': 'a control plane sent a snapshot of etcd; data.sha256, data.sizeBytes',
  'etcd-restore-chosen': 'a person chose what the next restore of etcd takes; data.sha256, data.by',
  'removal-step': 'a machine is being taken out of the cluster; data.step, data.outcome',
  'machine-removed': 'a person had a machine taken out of everything; data.by',
  'token-made': 'an API token was made; data.token, data.role',
  'token-revoked': 'an API token counts no more; data.token',
  'token-exposed': 'an API token came over plain HTTP, where others could read it: revoke it; data.token',
  'image-imported': 'an image came into the store; data.version',
  'image-removed': 'an image was taken out of the store; data.version',
  'image-damaged': 'files of an image are missing or not what they were; data.version',
} as const

export type EventKind = keyof typeof EVENT_KINDS

export type EventData = Readonly<Record<string, string | number | boolean>>

export interface NewEvent {
  readonly kind: EventKind
  /** Absent when it concerns no single machine. */
  readonly mac?: Mac
  /** One line for people, safe to show. */
  readonly message: string
  readonly data?: EventData
}

export interface Event extends NewEvent {
  /** Grows by one with each event; what `after` pages by. */
  readonly id: number
  readonly atMs: number
  readonly data: EventData
}
