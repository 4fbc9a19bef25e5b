/** Every endpoint of the contract, so that a test can say that it left none out. */
import { OpsApi } from "../../../src/layers/http/OpsApi.ts"

export interface Endpoint {
  readonly method: string
  /** With `:name` for a parameter. */
  readonly path: string
  /** `GET /groups/:group` */
  readonly name: string
}

export const endpoints: ReadonlyArray<Endpoint> = Object.values(OpsApi.groups).flatMap((group) =>
  Object.values(group.endpoints).map(({ method, path }) => ({ method, path, name: `${method} ${path}` }))
)
