'use strict';
// Both pages: a button with data-post calls the API with data-body and its form's fields.
const say = document.querySelector('[role=status]');

function tell(text, kind) {
  say.textContent = text;
  say.className = kind;
}

function bodyOf(button) {
  const body = JSON.parse(button.dataset.body || '{}');
  for (const field of button.form ? button.form.elements : []) {
    if (field.type === 'number' && field.value) body[field.name] = field.valueAsNumber;
    if (field.type === 'checkbox' && field.checked) body[field.name] = true;
    if (field.type === 'radio' && field.checked) body[field.name] = field.value;
  }
  return JSON.stringify(body);
}

document.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-post]');
  if (!button) return;
  event.preventDefault();
  if (button.getAttribute('aria-busy')) return;
  button.setAttribute('aria-busy', 'true');
  tell('', '');
  try {
    const response = await fetch(button.dataset.post, {method: 'POST', body: bodyOf(button)});
    const answer = response.status === 204 ? {} : await response.json();
    if (answer.error) tell(answer.error, 'bad');
    else if (button.dataset.done) tell(button.dataset.done, 'good');
    else if (!say.dataset.accepted) tell('', ''); // the dashboard shows the callback itself
    else if (answer.accepted) tell(say.dataset.accepted, 'good');
    else tell(say.dataset.refused.replace('{1}', () => answer.reason), 'bad');
  } catch (error) {
    tell(String(error), 'bad');
  }
  button.removeAttribute('aria-busy');
});

// The dashboard: pieces of the page arrive as they happen, escaped by the server.
const orders = document.getElementById('orders');
if (orders) {
  const live = document.getElementById('live');
  const events = new EventSource('/events?after=' + orders.dataset.last);
  const show = (on) => {
    live.textContent = on ? live.dataset.connected : live.dataset.lost;
    live.className = on ? 'on' : 'off';
  };
  events.onopen = () => show(true);
  events.onerror = () => show(false);
  events.addEventListener('reload', () => location.reload()); // the sandbox was started anew
  events.onmessage = (event) => {
    const {kind, token, html} = JSON.parse(event.data);
    const list = kind === 'order' ? orders : orders.querySelector(`[data-token="${CSS.escape(token)}"] .callbacks`);
    if (list) list.insertAdjacentHTML('afterbegin', html);
    while (orders.children.length > orders.dataset.shown) orders.lastElementChild.remove();
  };
}
