/** What is made of services alone, and works over every store. */
export { exactlyOnce, exactlyOncePromise, type OnceOptions } from "./exactlyOnce.ts"
export * as RandomIds from "./RandomIds.ts"
