import { describe, expect, it } from 'vitest';
import { readAddress, readServeOptions, SERVE_FLAGS } from '../../dist/cli/serve-options.js';
import { UsageError } from '../../dist/cli/usage.js';

const GIVEN: Readonly<Record<string, string>> = {
  'node-id': '2',
  'data-dir': 'data',
  listen: '0.0.0.0:7000',
  http: '127.0.0.1:8000',
  'initial-cluster': '1=one:7000,2=two:7000,3=[::1]:7000',
};

function argumentsOf(flags: Readonly<Record<string, string>>): string[] {
  return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
}

describe('flags of serve', () => {
  it('are read, with defaults for the rest', () => {
    expect(readServeOptions(argumentsOf(GIVEN), {})).toEqual({
      nodeId: 2,
      dataDir: 'data',
      listen: '0.0.0.0:7000',
      advertise: undefined,
      http: { host: '127.0.0.1', port: 8000 },
      voters: { 1: 'one:7000', 2: 'two:7000', 3: '[::1]:7000' },
      clusterName: 'keelson',
      configFile: undefined,
      logLevel: 'info',
    });
  });

  it('can all come from the environment, where the command line wins', () => {
    const optional = {
      'cluster-name': 'bank',
      advertise: 'elsewhere:7000',
      config: 'settings.json',
      'log-level': 'warn',
    };
    const all: Record<string, string> = { ...GIVEN, ...optional };
    const environment = Object.fromEntries(
      Object.entries(SERVE_FLAGS).map(([name, flag]) => [flag.environment, all[name]]),
    );
    expect(Object.keys(environment).sort()).toContain('KEELSON_INITIAL_CLUSTER');
    const fromEnvironment = readServeOptions([], environment);
    expect(fromEnvironment).toEqual(readServeOptions(argumentsOf(all), {}));
    expect(fromEnvironment).toMatchObject({ clusterName: 'bank', advertise: 'elsewhere:7000' });
    expect(readServeOptions(['--cluster-name', 'shop'], environment).clusterName).toBe('shop');
  });

  it.each(Object.keys(GIVEN))('--%s is required', (name) => {
    const { [name]: _, ...rest } = GIVEN;
    expect(() => readServeOptions(argumentsOf(rest), {})).toThrow(new RegExp(`missing --${name}`));
  });

  it.each([
    ['node-id', '0'],
    ['node-id', '-1'],
    ['node-id', 'two'],
    ['node-id', '9007199254740992'],
    ['node-id', '4'],
    ['listen', '7000'],
    ['listen', 'host:'],
    ['listen', 'host:70000'],
    ['http', '::1:8000'],
    ['advertise', 'a b:1'],
    ['initial-cluster', 'one:7000'],
    ['initial-cluster', '2=two'],
    ['initial-cluster', '2=two:1,2=two:2'],
    ['initial-cluster', '2=two:1,'],
    ['initial-cluster', '1=a:1,2=a:1,3=a:1,4=a:1,5=a:1,6=a:1,7=a:1,8=a:1'],
    ['log-level', 'loud'],
    ['nonsense', '1'],
  ])('--%s %s is refused by name', (name, value) => {
    const args = argumentsOf({ ...GIVEN, [name]: value });
    expect(() => readServeOptions(args, {})).toThrow(UsageError);
    expect(() => readServeOptions(args, {})).toThrow(name);
  });

  it('take IPv6 hosts in brackets', () => {
    expect(readAddress('http', '[::1]:80')).toEqual({ host: '::1', port: 80 });
  });
});
