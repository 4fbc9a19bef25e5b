/** The client SDK: for Node and browsers, without dependencies. */
export { HubError, type ClientErrorCode } from "./HubError.ts"
export { Nack, type Refusal } from "./Nack.ts"
export {
  type ConnectionOptions,
  type ConnectionState,
  type TokenSource,
  type WebSocketConstructor,
  type WebSocketLike,
  type Welcome
} from "./Connection.ts"
export {
  type ClientOptions,
  type Handler,
  PromClient,
  type Published,
  type SubscribeOptions
} from "./PromClient.ts"
export type { DeliveryContext, From, Gap, NackMode, PublishOptions, WireEvent } from "../protocol/Messages.ts"
