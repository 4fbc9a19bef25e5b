/**
 * What went wrong, for people: an error and what caused it, in one line.
 *
 * For what is shown again and again, in a status or a log. Where the whole error is wanted, it goes along as the cause.
 */
export const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const own = error.message.replaceAll(/\s*\n\s*/g, " ")
  return error.cause instanceof Error ? `${own}: ${reasonOf(error.cause)}` : own
}
