// What the script of the gateway defines: `<towpath-chat>` and the elements it is made of.

export { ChatElement } from './elements/chat.ts';
