/** The client SDK: for Node and browsers, without dependencies. */
export {
  type Client,
  type ClientEvents,
  type ClientOptions,
  type CloseOptions,
  type CommonOptions,
  createClient
} from "./Client.ts"
export { type ClientErrorCode, HubError, InvalidPayload } from "./HubError.ts"
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
  type ConsumeOptions,
  type Delivery,
  type GroupHandler,
  type GroupSubscription,
  type NackOptions
} from "./GroupSubscription.ts"
export {
  type LiveHandler,
  type LiveItem,
  type LiveSubscription,
  type LiveSubscriptionOptions,
  type Position
} from "./LiveSubscription.ts"
export { type Handler, PromClient, type PromClientOptions, type SubscribeOptions } from "./PromClient.ts"
export type { Published, PublisherOptions, PublishRequest } from "./Publisher.ts"
export type { SubscriptionOptions } from "./Subscription.ts"
export {
  type AnyTopics,
  defineTopics,
  type Issue,
  type NoPattern,
  type NoTopic,
  type PatternOf,
  type PublishPayload,
  type ReceivedPayload,
  type StandardResult,
  type StandardSchema,
  type TopicOf,
  type Topics,
  type TopicSchemas
} from "./topics.ts"
export type { DeliveryContext, From, Gap, NackMode, PublishOptions, WireEvent } from "../protocol/Messages.ts"
