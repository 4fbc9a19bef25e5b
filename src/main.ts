/**
 * `npm start`: a hub, configured by the environment (docs/configuration.md).
 *
 * The way in for readers: hub/serve.ts reads the configuration and picks a deployment, hub/EmbeddedHub.ts is
 * the one of a single machine, and hub/Hub.ts composes any of them from the layers.
 */
import { runProcess } from "./hub/process.ts"
import { serve } from "./hub/serve.ts"

runProcess(serve(process.env))
