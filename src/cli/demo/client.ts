/**
 * A small HTTP client for the nodes of the demo, with keep-alive. It tells apart a request that
 * never left (safe to repeat elsewhere) and one whose answer is missing (outcome unknown).
 */
import { Agent, request as httpRequest } from 'node:http';

export interface NodeReply {
  readonly status: number;
  /** Who leads, as the answering node knows; 0 when it does not. */
  readonly leader: number;
  readonly body: Buffer;
}

export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
  /** False when the connection was refused: the node never saw the request. */
  readonly sent: boolean;

  constructor(cause: NodeJS.ErrnoException) {
    super(cause.message, { cause });
    this.sent = cause.code !== 'ECONNREFUSED';
  }
}

/** Longer than a node takes to give up by itself, so that its answer usually comes first. */
const REQUEST_TIME_LIMIT_MS = 15_000;

export class NodeClient {
  private readonly ports: ReadonlyMap<number, number>;
  private readonly agent: Agent;

  constructor(ports: ReadonlyMap<number, number>, connections: number) {
    this.ports = ports;
    this.agent = new Agent({ keepAlive: true, maxSockets: connections });
  }

  get nodeIds(): number[] {
    return [...this.ports.keys()];
  }

  send(nodeId: number, method: string, path: string, body?: Uint8Array): Promise<NodeReply> {
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        host: '127.0.0.1',
        port: this.ports.get(nodeId),
        method,
        path,
        agent: this.agent,
        headers: body === undefined ? {} : { 'content-length': body.length },
      });
      const fail = (error: NodeJS.ErrnoException): void => reject(new NoAnswer(error));
      request.setTimeout(REQUEST_TIME_LIMIT_MS, () =>
        request.destroy(new Error(`no answer within ${REQUEST_TIME_LIMIT_MS} ms`)),
      );
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', fail);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            leader: Number(response.headers['keelson-leader'] ?? 0),
            body: Buffer.concat(chunks),
          }),
        );
      });
      request.end(body);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}
