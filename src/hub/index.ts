/** Whole hubs as layers, one module for each deployment, and what they are configured with. */
export * as EmbeddedHub from "./EmbeddedHub.ts"
export * as Hub from "./Hub.ts"
export * as HubConfig from "./HubConfig.ts"
export * as MemoryHub from "./MemoryHub.ts"
export * as Sha256 from "./Sha256.ts"
export * as TestHub from "./TestHub.ts"
export * as Tokens from "./Tokens.ts"
