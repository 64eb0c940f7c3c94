// Shows Markdown that may still be growing: settled blocks stay as they are, the last one is drawn
// again at most once a frame, and less often where it costs more. The end waits for no frame, so that
// nothing is still to come once the run is said to be over.

import DOMPurify from 'dompurify';
import { LitElement, css, html } from 'lit';
import { customElement, property } from 'lit/decorators.js';
import { Blocks } from '../markdown.ts';
import { base, controls } from '../styles/look.ts';
import { prose } from '../styles/prose.ts';

const TAGS = [
  'p', 'br', 'hr', 'em', 'strong', 'del', 'code', 'pre', 'blockquote', 'a', 'ul', 'ol', 'li',
  'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td',
];
const BUDGET = 6; // Milliseconds of a frame that settled blocks may take.
const REST = 4; // How many times longer than the last drawing the page has for other things.
const COPIED = 1_500; // Milliseconds the button says that it did.

@customElement('towpath-markdown')
export class MarkdownElement extends LitElement {
  static override styles = [base, controls, prose, css`
    :host { display: block; }
    .block { display: contents; }
  `];

  @property({ attribute: false }) text = '';
  /** Whether all of it is there. */
  @property({ attribute: false }) complete = false;

  private readonly blocks = new Blocks();
  private frame = 0;
  private notBefore = 0;
  private readonly settled = block();
  private readonly open = block();

  override render(): unknown {
    return html`<div class="prose">${this.settled}${this.open}</div>`;
  }

  override updated(): void {
    this.blocks.set(this.text, this.complete);
    // The first piece and the last are there with their message; what is between waits for its frame.
    if (this.complete || this.settled.childElementCount + this.open.childElementCount === 0) {
      this.draw();
    } else {
      this.schedule();
    }
  }

  override connectedCallback(): void {
    super.connectedCallback();
    this.renderRoot?.addEventListener('click', this.clicked);
  }

  override firstUpdated(): void {
    this.renderRoot.addEventListener('click', this.clicked);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  private schedule(): void {
    if (this.frame === 0 && this.isConnected) {
      this.frame = requestAnimationFrame((now) => {
        this.frame = 0;
        if (now < this.notBefore && !this.complete) {
          this.schedule();
        } else {
          this.draw();
        }
      });
    }
  }

  private draw(): void {
    const began = performance.now();
    let step;
    do {
      step = this.blocks.step();
      if (step.anew) {
        this.settled.replaceChildren();
      }
      for (const html of step.settled) {
        this.settled.append(clean(html));
      }
    } while (step.more && performance.now() - began < BUDGET);
    drawOpen(this.open, step.open);
    const took = performance.now() - began;
    this.notBefore = began + took * (1 + REST);
    if (step.more) {
      this.schedule();
    }
  }

  private readonly clicked = (event: Event): void => {
    const button = (event.target as Element).closest<HTMLButtonElement>('button.copy');
    const code = button?.closest('figure')?.querySelector('code');
    if (button && code) {
      void navigator.clipboard.writeText(code.textContent ?? '').then(
        () => say(button, 'Copied'),
        () => say(button, 'Not copied'),
      );
    }
  };
}

function block(): HTMLElement {
  const element = document.createElement('div');
  element.className = 'block';
  return element;
}

function say(button: HTMLButtonElement, words: string): void {
  button.textContent = words;
  setTimeout(() => { button.textContent = 'Copy'; }, COPIED);
}

/** Draw a block that may change; code that only grew keeps its place, its selection and its scroll. */
function drawOpen(place: HTMLElement, html: string | null): void {
  if (html === null) {
    place.replaceChildren();
    return;
  }
  const fresh = clean(html);
  const before = place.querySelector('figure code')?.firstChild;
  const after = fresh.querySelector('figure code')?.firstChild;
  if (before instanceof Text && after instanceof Text && place.childElementCount === 1
    && after.data.startsWith(before.data) && labelOf(place) === labelOf(fresh)) {
    before.appendData(after.data.slice(before.data.length));
    return;
  }
  place.replaceChildren(fresh);
}

function labelOf(place: ParentNode): string {
  return place.querySelector('figcaption span')?.textContent ?? '';
}

/** Return sanitised elements of HTML, with what the page adds to them. */
function clean(html: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ['href', 'class', 'start', 'align'],
    ADD_URI_SAFE_ATTR: ['align', 'start'],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll('a')) {
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
  }
  for (const table of fragment.querySelectorAll('table')) {
    const frame = document.createElement('div');
    frame.className = 'table';
    frame.tabIndex = 0;
    frame.role = 'region';
    frame.ariaLabel = 'Table';
    table.replaceWith(frame);
    frame.append(table);
  }
  fragment.querySelectorAll('pre').forEach(frameCode);
  return fragment;
}

/** Put a block of code under its language and a button that copies it. */
function frameCode(pre: HTMLPreElement): void {
  const code = pre.querySelector('code');
  const language = /^language-([\w+#.-]{1,30})$/.exec(code?.className ?? '')?.[1] ?? '';
  code?.removeAttribute('class');
  const name = document.createElement('span');
  name.textContent = language || 'text';
  const copy = document.createElement('button');
  copy.type = 'button';
  copy.className = 'copy plain tiny';
  copy.textContent = 'Copy';
  const caption = document.createElement('figcaption');
  caption.append(name, copy);
  const figure = document.createElement('figure');
  pre.replaceWith(figure);
  pre.tabIndex = 0;
  figure.append(caption, pre);
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-markdown': MarkdownElement;
  }
}
