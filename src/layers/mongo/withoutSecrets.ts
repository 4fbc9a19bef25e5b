/** The URL of a MongoDB as people may see it: without its user, password and options. */
export const withoutSecrets = (url: string): string => url.replace(/\/\/[^/]*@/, "//").replace(/\?.*$/, "")
