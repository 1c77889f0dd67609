import Recorder from './recorder.mjs';

export default class extends Recorder {
  version = '2';
}
