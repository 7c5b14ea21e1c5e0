// Functions that delay an action and combine several calls into one.

// throttled returns a function that runs action some milliseconds after the first call. Further calls until then have no
// effect. cancel drops a pending run.
export function throttled(action, milliseconds) {
  let timer = 0;
  const schedule = () => {
    timer ||= setTimeout(() => {
      timer = 0;
      action();
    }, milliseconds);
  };
  schedule.cancel = () => {
    clearTimeout(timer);
    timer = 0;
  };
  return schedule;
}

// debounced returns a function that runs action some milliseconds after the last call. cancel drops a pending run.
export function debounced(action, milliseconds) {
  let timer = 0;
  const schedule = () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
  schedule.cancel = () => clearTimeout(timer);
  return schedule;
}
