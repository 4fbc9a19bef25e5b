/**
 * When the messages of a connection are looked at, so that nobody who sends much is in the way of others, and so that
 * no more comes in than the store takes.
 *
 * In one turn of the event loop so many messages are looked at, and no more (of one connection that is alone, more); the
 * connections that have more wait, unread, and share the turns that follow. Those that have had nothing in a turn come before those that have.
 * While too many events wait for the store, whoever publishes is held until half of them are gone; whoever has none
 * among them may add one.
 */

export interface Options {
  /** Events that wait for the store, whoever brought them. */
  readonly queued: () => number
  readonly pauseAtEvents: number
  readonly pauseAtBytes: number
  /** Calls back in the next turn of the event loop. */
  readonly soon: (run: () => void) => void
  /** Calls back after a while. */
  readonly later: (run: () => void) => void
  readonly onPause: () => void
}

/** What is looked at in one turn: a frame counts as one and as much as its size, each of its messages as one. */
const turnSize = 128
/** Of one connection, while nobody waits for it: events that come together are stored together. */
const turnSizeAlone = 512
const bytesOfOne = 512

/** What a connection has of a turn while others wait: when it comes, and when it is always at it. */
const freshShare = 16
const busyShare = 32

/** One connection's place in it. */
export interface Place {
  /** Goes on with what the connection has. */
  readonly work: () => void
  turn: number
  used: number
  share: number
  /** Its events that are with the appender. */
  unanswered: number
}

export const place = (work: () => void): Place => ({
  work,
  turn: 0,
  used: 0,
  share: freshShare,
  unanswered: 0
})

const takeFirst = (places: Set<Place>): Place | undefined => {
  for (const first of places) {
    places.delete(first)
    return first
  }
  return undefined
}

export class Intake {
  readonly #options: Options
  #turn = 1
  #left = turnSize
  #isScheduled = false
  #serving: Place | undefined
  /** Who waits for a turn: without having had anything of the last one, and with. */
  readonly #fresh = new Set<Place>()
  readonly #busy = new Set<Place>()
  /** Who waits for the store, in the order in which they came. */
  readonly #held = new Set<Place>()
  #isBehind = false
  #isLooking = false
  /** Of events that connections brought and that are not answered. */
  #bytes = 0

  constructor(options: Options) {
    this.#options = options
  }

  // --- turns -------------------------------------------------------------------------------------------------

  /** Whether one more frame or message may be looked at now. If not, `work` is called when it may. */
  may(place: Place, bytes = 0): boolean {
    if (place !== this.#serving && (this.#fresh.has(place) || this.#busy.has(place))) return false
    if (place.turn !== this.#turn) {
      place.turn = this.#turn
      place.used = 0
      place.share = freshShare
    }
    const isAlone = this.#fresh.size === 0 && this.#busy.size === 0
    this.#schedule()
    // What it alone has had of the turn, others do not have to wait for more than once.
    const isSpent = isAlone && place.used > 0 ? place.used >= turnSizeAlone : this.#left <= 0
    if (isSpent || (!isAlone && place.used >= place.share)) {
      ;(place.used === 0 ? this.#fresh : this.#busy).add(place)
      return false
    }
    const cost = 1 + Math.floor(bytes / bytesOfOne)
    place.used += cost
    this.#left -= cost
    return true
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#options.soon(() => this.#nextTurn())
  }

  #nextTurn(): void {
    this.#isScheduled = false
    this.#turn++
    this.#left = turnSize
    // One of those that are always at it, lest the others keep them waiting for ever.
    this.#serve(this.#busy, busyShare)
    while (this.#left > 0) {
      if (!this.#serve(this.#fresh, freshShare) && !this.#serve(this.#busy, busyShare)) return
    }
    this.#schedule()
  }

  #serve(waiting: Set<Place>, share: number): boolean {
    const next = takeFirst(waiting)
    if (next === undefined) return false
    next.turn = this.#turn
    next.used = 0
    next.share = share
    this.#serving = next
    next.work()
    this.#serving = undefined
    return true
  }

  // --- the store ---------------------------------------------------------------------------------------------

  /** Whether a publish has to wait for the store. If so, `work` is called when it need not. */
  holds(place: Place): boolean {
    const { onPause, pauseAtBytes, pauseAtEvents, queued } = this.#options
    if (!this.#isBehind && (queued() >= pauseAtEvents || this.#bytes >= pauseAtBytes)) {
      this.#isBehind = true
      onPause()
    }
    if (!this.#isBehind) return false
    // Who publishes one after the other is not what the store is behind with; up to a bound, for there may be many.
    const isModest = place.unanswered === 0
    if (isModest && queued() < 2 * pauseAtEvents && this.#bytes < 2 * pauseAtBytes) return false
    this.#held.add(place)
    this.#lookLater()
    return true
  }

  /** An event was handed to the appender. */
  offered(place: Place, bytes: number): void {
    place.unanswered++
    this.#bytes += bytes
  }

  /** The appender has answered it. */
  answered(place: Place, bytes: number): void {
    place.unanswered--
    this.#bytes -= bytes
    if (this.#isBehind) this.#look()
  }

  /** What waits for the store need not be of connections: then no answer says that there is less of it. */
  #lookLater(): void {
    if (this.#isLooking) return
    this.#isLooking = true
    this.#options.later(() => {
      this.#isLooking = false
      if (!this.#isBehind) return
      this.#look()
      if (this.#isBehind) this.#lookLater()
    })
  }

  #look(): void {
    const { pauseAtBytes, pauseAtEvents, queued } = this.#options
    if (queued() > pauseAtEvents / 2 || this.#bytes > pauseAtBytes / 2) return
    this.#isBehind = false
    // In their turns, and in the order in which they came: when it is too much again, the others are first next time.
    for (const place of this.#held) this.#busy.add(place)
    this.#held.clear()
    this.#schedule()
  }

  /** The connection is over. */
  leave(place: Place): void {
    for (const places of [this.#fresh, this.#busy, this.#held]) places.delete(place)
  }
}
