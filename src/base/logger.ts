/** Any pino-shaped logger. The first argument carries the fields, `event` among them. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

export interface LogFields {
  /** Stable name of the event, `subject.verb`, for example `leader.elected`. */
  readonly event: string;
  readonly [field: string]: unknown;
}

const nothing = (): void => {};

export const silentLogger: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
};
