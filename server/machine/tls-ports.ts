// What the HTTPS listener needs of the certificates.

/** What a TLS server shows to a client, PEM. */
export interface TlsMaterial {
  readonly key: string
  /** The server's own certificate first, then those that signed it, without the root. */
  readonly chain: string
}

export interface TlsSource {
  /** PEM of the CA that signs the machines' certificates: the only one that is believed of a client. */
  readonly caPem: string
  /** For clients that name no host, and for every host that `materialFor` knows nothing of. */
  material(): TlsMaterial
  /** For the host that a client names (SNI, RFC 6066 §3), in lower case. */
  materialFor(host: string): TlsMaterial | undefined
  /** Called after either has changed; the returned function unsubscribes. */
  onChange(listener: () => void): () => void
}

/** The server's own CA, as everybody may see it. */
export interface CaView {
  readonly pem: string
  /** sha256 of the certificate's DER, hex. */
  readonly fingerprint: string
  /** Where the certificate lies on the server. */
  readonly file: string
}
