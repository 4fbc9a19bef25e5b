/**
 * `npm start`: a hub, configured by the environment (docs/configuration.md).
 *
 * The way in for readers: hub/serve.ts reads the configuration and picks a deployment, hub/EmbeddedHub.ts is
 * the one of a single machine, and hub/Hub.ts composes any of them from the layers.
 */
// While the hub is loaded there is nothing yet that could be looked at anew; but the signal would end the process.
process.on("SIGHUP", () => {})

const [{ runProcess }, { serve }] = await Promise.all([import("./hub/process.ts"), import("./hub/serve.ts")])

runProcess(serve(process.env))
