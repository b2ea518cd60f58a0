// What node-forge 1.4 has and its types leave out.

import 'node-forge'

declare module 'node-forge' {
  namespace asn1 {
    function fromDer(
      bytes: string,
      options: {
        readonly strict: boolean
        readonly parseAllBytes: boolean
        readonly decodeBitStrings: boolean
        readonly maxDepth: number
      },
    ): Asn1
  }
  namespace pki {
    function getTBSCertificate(certificate: Certificate): asn1.Asn1
    function certificateExtensionsFromAsn1(
      extensions: asn1.Asn1,
    ): readonly { readonly name?: string; readonly subjectKeyIdentifier?: string }[]
  }
}
