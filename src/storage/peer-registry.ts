/**
 * Which incarnation of each peer this node has met, kept durably: a peer that lost its directory
 * comes back as another incarnation and must not vote as if it still knew what it promised.
 */
import { join } from 'node:path';
import { invariant } from '../base/assert.js';
import type { NodeId } from '../engine/types.js';
import { corrupt, readCheckedFile, writeCheckedFile } from './checked-file.js';
import type { Disk } from './disk.js';

export const PEERS_FILE = 'peers';
const PEERS_FORMAT_VERSION = 1;

export class PeerRegistry {
  private readonly disk: Disk;
  private readonly directory: string;
  private readonly incarnations: Map<NodeId, string>;

  private constructor(disk: Disk, directory: string, incarnations: Map<NodeId, string>) {
    this.disk = disk;
    this.directory = directory;
    this.incarnations = incarnations;
  }

  /** @throws KeelsonError STORAGE_CORRUPT or STORAGE_VERSION when the file cannot be read. */
  static open(disk: Disk, directory: string): PeerRegistry {
    const incarnations = new Map<NodeId, string>();
    const content = readCheckedFile(disk, directory, PEERS_FILE, PEERS_FORMAT_VERSION);
    if (content !== undefined) {
      const path = join(directory, PEERS_FILE);
      if (!Array.isArray(content.peers)) throw corrupt(path, 'it has no list of peers');
      for (const peer of content.peers as unknown[]) {
        const [nodeId, incarnation] = Array.isArray(peer) ? (peer as unknown[]) : [];
        if (!Number.isSafeInteger(nodeId) || typeof incarnation !== 'string') {
          throw corrupt(path, 'a peer has no node id or no incarnation');
        }
        incarnations.set(nodeId as NodeId, incarnation);
      }
    }
    return new PeerRegistry(disk, directory, incarnations);
  }

  /** The incarnation last remembered, or undefined for a peer never met. */
  known(nodeId: NodeId): string | undefined {
    return this.incarnations.get(nodeId);
  }

  /** All that were met, by node id. */
  list(): (readonly [NodeId, string])[] {
    return [...this.incarnations].sort((left, right) => left[0] - right[0]);
  }

  /** `conflict`: the peer is known under another incarnation. */
  check(nodeId: NodeId, incarnation: string): 'new' | 'known' | 'conflict' {
    const known = this.incarnations.get(nodeId);
    if (known === undefined) return 'new';
    return known === incarnation ? 'known' : 'conflict';
  }

  /**
   * Durable on return. A peer that is known under another incarnation is not forgotten by this:
   * `replace` is for its readmission.
   */
  remember(nodeId: NodeId, incarnation: string): void {
    const known = this.incarnations.get(nodeId);
    if (known === incarnation) return;
    invariant(known === undefined, `node ${nodeId} is remembered under its first incarnation`);
    this.replace(nodeId, incarnation);
  }

  /** Takes another incarnation for a peer that was readmitted; durable on return. */
  replace(nodeId: NodeId, incarnation: string): void {
    const next = new Map(this.incarnations).set(nodeId, incarnation);
    const peers = [...next].sort((left, right) => left[0] - right[0]);
    writeCheckedFile(this.disk, this.directory, PEERS_FILE, {
      format: PEERS_FORMAT_VERSION,
      peers,
    });
    // Known only once it is durable: an answer may depend on it.
    this.incarnations.set(nodeId, incarnation);
  }
}
