// Whether a member can be taken out of etcd without stopping it: arithmetic of majorities, without learners. Pure.

import type { EtcdMember } from './cluster-ports.ts'

/** Votes that a decision needs among `voters`. */
export function quorumOf(voters: number): number {
  return Math.floor(voters / 2) + 1
}

/** Why the member `id` cannot be removed now; undefined when it can. */
export function findRemovalFault(members: readonly EtcdMember[], id: string): string | undefined {
  const voters = members.filter(({ isLearner }) => isLearner !== true)
  const left = voters.filter((member) => member.id !== id)
  const healthy = voters.filter(({ isHealthy }) => isHealthy).length
  const healthyLeft = left.filter(({ isHealthy }) => isHealthy).length
  if (left.length === 0) return 'it is the only member'
  // The removal itself is a decision of those who are members now.
  if (healthy < quorumOf(voters.length))
    return `etcd stands still: ${healthy} of ${voters.length} members are healthy, ${quorumOf(voters.length)} are needed`
  if (healthyLeft < quorumOf(left.length))
    return `of the ${left.length} members that are left, ${healthyLeft} are healthy, and ${quorumOf(left.length)} are needed`
  return undefined
}
