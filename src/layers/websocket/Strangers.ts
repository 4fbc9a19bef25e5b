/**
 * What connections may have sent before the hub knows who they are: each the size of a token and a few messages, and
 * all of them together so much beyond that. So an AUTH with a large frame of messages behind it is taken, and a
 * thousand connections that never end a frame do not fill the memory.
 */

export interface Options {
  /** Bytes that each of them may send, whatever the others do. */
  readonly bytesOfEach: number
  /** Bytes beyond these, of all of them. */
  readonly bytesOfAll: number
}

/** Messages that come with an AUTH, besides its token. */
export const bytesBesideToken = 8 * 1024

/** One connection until it is known or over. */
export interface Stranger {
  /** More came from it. False: it is too much, and the connection has to go. */
  readonly heard: (bytes: number) => boolean
  /** What it sent counts no more. */
  readonly leave: () => void
}

export class Strangers {
  readonly #options: Options
  #beyond = 0

  constructor(options: Options) {
    this.#options = options
  }

  /** Bytes of all of them beyond what each may send. */
  get bytesBeyond(): number {
    return this.#beyond
  }

  join(): Stranger {
    const { bytesOfAll, bytesOfEach } = this.#options
    let heard = 0
    let beyond = 0
    const count = (own: number): void => {
      this.#beyond += own - beyond
      beyond = own
    }
    return {
      heard: (bytes) => {
        heard += bytes
        count(Math.max(0, heard - bytesOfEach))
        return beyond === 0 || this.#beyond <= bytesOfAll
      },
      leave: () => {
        heard = 0
        count(0)
      }
    }
  }
}
