throw new Error('this module does not evaluate');
