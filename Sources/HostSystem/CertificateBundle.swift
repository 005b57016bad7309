/// The file of trusted certificate authorities that TLS connections are checked against.
///
/// A static OpenSSL knows only the folder it was compiled for, and an empty one is no error to it: every connection would then
/// fail with "unknown authority". So amorce looks itself, in the places of the distributions, and says what it looked at.
public struct CertificateBundle: Sendable, Equatable {
    public let path: String
    /// How many certificates it holds, at least one.
    public let count: Int

    public struct NotFound: Error, Sendable, Equatable, CustomStringConvertible {
        /// Each file with what was wrong with it.
        public let looked: [String]
        public var description: String {
            "no certificate authorities to check TLS servers against (\(looked.joined(separator: ", "))); "
                + "install ca-certificates, or name a PEM file in AWS_CA_BUNDLE"
        }
    }

    /// Debian and Alpine; Fedora and RHEL 6; RHEL 7 and later, Amazon Linux; openSUSE; what OpenSSL itself looks at.
    public static let places = [
        "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
    ]
    /// The first of these that is set decides alone: whoever names a bundle does not want another one to be trusted.
    public static let variables = ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"]

    public static func find(
        environment: [String: String], places: [String] = CertificateBundle.places
    ) throws(NotFound) -> CertificateBundle {
        var looked: [String] = []
        for name in variables {
            guard let path = environment[name], !path.isEmpty else { continue }
            if let bundle = read(path, saying: &looked, prefix: name + "=") { return bundle }
            throw NotFound(looked: looked)
        }
        for path in places {
            if let bundle = read(path, saying: &looked) { return bundle }
        }
        throw NotFound(looked: looked)
    }

    private static func read(_ path: String, saying looked: inout [String], prefix: String = "") -> CertificateBundle? {
        do {
            let count = certificates(in: try FileReading.bytes(path, limit: 32 << 20))
            if count > 0 { return CertificateBundle(path: path, count: count) }
            looked.append("\(prefix)\(Printable.text(path)) holds no certificate")
        } catch let error as HostError {
            looked.append("\(prefix)\(Printable.text(path)): \(error.reason)")
        } catch {
            looked.append("\(prefix)\(error)")
        }
        return nil
    }

    /// How many PEM certificates begin and end in these bytes (RFC 7468; OpenSSL also reads its own `TRUSTED` form).
    static func certificates(in bytes: [UInt8]) -> Int {
        var begun = false
        var count = 0
        for line in bytes.split(whereSeparator: { $0 == 0x0a || $0 == 0x0d }) where line.first == UInt8(ascii: "-") {
            switch String(decoding: line, as: UTF8.self) {
            case "-----BEGIN CERTIFICATE-----", "-----BEGIN TRUSTED CERTIFICATE-----", "-----BEGIN X509 CERTIFICATE-----":
                begun = true
            case "-----END CERTIFICATE-----", "-----END TRUSTED CERTIFICATE-----", "-----END X509 CERTIFICATE-----":
                if begun { count += 1 }
                begun = false
            default: break
            }
        }
        return count
    }
}
