import { connect, createServer, type Server, type Socket } from 'node:net';
import type { LogFields, Logger } from '../../../dist/base/logger.js';
import { SystemScheduler } from '../../../dist/base/system-scheduler.js';
import type { NetworkConfig } from '../../../dist/config/types.js';
import type { NodeId } from '../../../dist/engine/types.js';
import { parseAddress } from '../../../dist/network/address.js';
import { FRAME_HEADER_BYTES, sealFrame } from '../../../dist/network/frame.js';
import type { PeerRegistry } from '../../../dist/network/handshake.js';
import { TcpNetwork, type TcpNetworkOptions } from '../../../dist/network/tcp-network.js';

export const CLUSTER_ID = 'c1'.repeat(16);

export function incarnationOf(nodeId: NodeId): string {
  return nodeId.toString(16).padStart(32, '0');
}

export class MemoryRegistry implements PeerRegistry {
  readonly known: Map<NodeId, string> = new Map();

  check(nodeId: NodeId, incarnation: string): 'new' | 'known' | 'conflict' {
    const known = this.known.get(nodeId);
    if (known === undefined) return 'new';
    return known === incarnation ? 'known' : 'conflict';
  }

  remember(nodeId: NodeId, incarnation: string): Promise<void> {
    this.known.set(nodeId, incarnation);
    return Promise.resolve();
  }
}

export class RecordingLogger implements Logger {
  readonly lines: { level: string; fields: LogFields; message: string }[] = [];

  debug(fields: LogFields, message: string): void {
    this.lines.push({ level: 'debug', fields, message });
  }

  info(fields: LogFields, message: string): void {
    this.lines.push({ level: 'info', fields, message });
  }

  warn(fields: LogFields, message: string): void {
    this.lines.push({ level: 'warn', fields, message });
  }

  error(fields: LogFields, message: string): void {
    this.lines.push({ level: 'error', fields, message });
  }

  named(event: string): { level: string; fields: LogFields; message: string }[] {
    return this.lines.filter(({ fields }) => fields.event === event);
  }
}

export const TEST_CONFIG: NetworkConfig = {
  maxFrameBytes: 16 * 1024 * 1024,
  maxQueuedBytes: 32 * 1024 * 1024,
  maxRequests: 16_384,
  connectTimeoutMs: 3_000,
  handshakeTimeoutMs: 3_000,
  reconnectMinMs: 5,
  reconnectMaxMs: 50,
};

export interface TestNode {
  readonly network: TcpNetwork;
  readonly logger: RecordingLogger;
  readonly registry: MemoryRegistry;
}

export function tcpNode(
  nodeId: NodeId,
  config: Partial<NetworkConfig> = {},
  options: Partial<TcpNetworkOptions> = {},
): TestNode {
  const logger = new RecordingLogger();
  const registry = new MemoryRegistry();
  const network = new TcpNetwork({
    identity: { clusterId: CLUSTER_ID, nodeId, incarnation: incarnationOf(nodeId) },
    versions: { format: { min: 1, max: 1 }, stateMachine: { min: 1, max: 1 } },
    listen: '127.0.0.1:0',
    config: { ...TEST_CONFIG, ...config },
    scheduler: new SystemScheduler(),
    logger,
    registry,
    ...options,
  });
  return { network, logger, registry };
}

/** A whole frame; the fixed part is what `fixedBytes` says, or the whole body. */
export function frame(type: number, body: Uint8Array, fixedBytes = body.byteLength): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + body.byteLength);
  bytes.set(body, FRAME_HEADER_BYTES);
  sealFrame(new DataView(bytes.buffer), 0, type, fixedBytes, body.byteLength);
  return bytes;
}

/** A client that is no node: it sends bytes as they are and collects what comes back. */
export class RawClient {
  readonly socket: Socket;
  received: Buffer = Buffer.alloc(0);
  closed = false;

  constructor(address: string) {
    this.socket = connect(parseAddress(address));
    this.socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
  }
}

/** Stands between nodes and can stop carrying bytes, per connection, without closing anything. */
export class StallingProxy {
  readonly pairs: { readonly near: Socket; readonly far: Socket }[] = [];
  address = '';
  private readonly server: Server;

  constructor(target: string) {
    this.server = createServer((near) => {
      const far = connect(parseAddress(target));
      this.pairs.push({ near, far });
      near.pipe(far);
      far.pipe(near);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.on('error', () => {});
        one.on('close', () => other.destroy());
      }
    });
  }

  start(): Promise<void> {
    return new Promise((resolve) => {
      this.server.listen(0, '127.0.0.1', () => {
        this.address = `127.0.0.1:${(this.server.address() as { port: number }).port}`;
        resolve();
      });
    });
  }

  /** What the node behind the proxy is sent over a stalled pair stays in the proxy's socket. */
  stall(at: number): void {
    this.pairs[at]!.near.unpipe();
    this.pairs[at]!.near.pause();
  }

  resume(at: number): void {
    this.pairs[at]!.near.pipe(this.pairs[at]!.far);
  }

  close(): Promise<void> {
    for (const { near, far } of this.pairs) {
      near.destroy();
      far.destroy();
    }
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}
