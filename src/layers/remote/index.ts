/** Draining an outbox into a hub of another process: `event-hub/remote`. For Promises, see `event-hub/remote/mongo`. */
export * as AppendingDrainer from "../core/AppendingDrainer.ts"
export * as RemoteTarget from "./RemoteTarget.ts"
