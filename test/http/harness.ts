/** A handler behind a real server on a free port of 127.0.0.1, and a small client for it. */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect } from 'node:net';
import { type HttpOptions, HttpServer } from '../../dist/http/index.js';
import { FakeRaft } from './fake-raft.js';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Buffer;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  readonly json: any;
}

export class Harness {
  readonly raft: FakeRaft;
  readonly server: HttpServer;
  readonly port: number;

  private constructor(raft: FakeRaft, server: HttpServer, port: number) {
    this.raft = raft;
    this.server = server;
    this.port = port;
  }

  static async open(options: HttpOptions = {}): Promise<Harness> {
    const raft = new FakeRaft();
    const server = new HttpServer(raft, options);
    const address = await server.listen({ host: '127.0.0.1', port: 0 });
    return new Harness(raft, server, Number(address.split(':')[1]));
  }

  /** The path goes out exactly as given. */
  send(
    method: string,
    path: string,
    body?: Uint8Array | string,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { port } = this;
      const request = httpRequest(
        { host: '127.0.0.1', port, method, path, headers, agent: false },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => {
            const bytes = Buffer.concat(chunks);
            const isJson = response.headers['content-type'] === 'application/json';
            const json = isJson && bytes.length > 0 ? JSON.parse(bytes.toString()) : undefined;
            resolve({ status: response.statusCode ?? 0, headers: response.headers, bytes, json });
          });
          response.on('error', reject);
        },
      );
      request.on('error', reject);
      request.end(body);
    });
  }

  /** Writes raw bytes to the port and resolves with all that comes back until the server closes. */
  raw(bytes: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1');
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => resolve(Buffer.concat(chunks).toString()));
      socket.on('error', reject);
      socket.write(bytes);
    });
  }

  async close(): Promise<void> {
    await this.server.close(AbortSignal.abort());
  }
}
