/** Memberships in the logs that are checked: JSON, so that whoever brings a store needs no codec. */
import type { Membership } from '../engine/types.js';

export function decodeTestMembership(payload: Uint8Array): Membership {
  return JSON.parse(new TextDecoder().decode(payload)) as Membership;
}

export function encodeTestMembership(voters: readonly number[]): Uint8Array {
  const membership = { configs: [voters], learners: [], addresses: {} };
  return new TextEncoder().encode(JSON.stringify(membership));
}
