/// A request that got no answer: what went wrong, towards which URL (without its query, which may be a signature), and
/// what libcurl said. Any status, 500 too, is an answer and no failure.
public struct HTTPFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public enum TLSProblem: Sendable, Equatable {
        case expired
        case notYetValid
        case wrongHost
        /// Signed by nobody in the certificate bundle, or by itself.
        case unknownAuthority
        /// No TLS 1.2 or 1.3 in common, or no TLS at all on that port.
        case protocolVersion
        case other
    }

    public enum Kind: Sendable, Equatable {
        /// The request could not be sent as it is: a scheme other than http and https, a line break in a header.
        case malformedRequest
        /// The name server says that there is no such name.
        case nameNotFound
        /// The name server gave no answer, or one that decides nothing (SERVFAIL).
        case nameServerFailed
        case refused
        case networkUnreachable
        case connectTimeout
        /// Connected, but the whole answer was not here in time.
        case timeout
        /// Connected, then nothing more for this long.
        case stalled(Duration)
        /// Fewer bytes a second than the least that is accepted.
        case tooSlow(bytesPerSecond: Int64)
        case reset
        /// The connection ended before the promised length.
        case truncated
        case tls(TLSProblem)
        case noCertificates(CertificateBundle.NotFound)
        case proxy
        case tooLarge(limit: Int)
        /// What came back is no HTTP.
        case malformedAnswer
        case other
    }

    public let kind: Kind
    public let url: String
    /// The CURLcode, 0 where amorce itself ended the transfer.
    public let code: Int32
    /// libcurl's own words, one printable line.
    public let detail: String

    public init(_ kind: Kind, url: String, code: Int32 = 0, detail: String = "") {
        self.kind = kind
        self.url = HTTPRequest.withoutQuery(url)
        self.code = code
        self.detail = Printable.text(detail, limit: 200)
    }

    /// Whether the same request may get an answer a little later. A name that does not exist, a certificate that is not
    /// accepted and an answer that is too large stay so.
    public var isWorthRetrying: Bool {
        switch kind {
        case .nameServerFailed, .refused, .networkUnreachable, .connectTimeout, .timeout, .stalled, .tooSlow, .reset,
            .truncated, .proxy, .malformedAnswer, .other:
            true
        case .malformedRequest, .nameNotFound, .tls, .noCertificates, .tooLarge: false
        }
    }

    /// Whether some of the request can have reached the server: it may then have done what it was asked.
    public var mayHaveArrived: Bool {
        switch kind {
        case .timeout, .stalled, .tooSlow, .reset, .truncated, .tooLarge, .malformedAnswer, .other: true
        case .malformedRequest, .nameNotFound, .nameServerFailed, .refused, .networkUnreachable, .connectTimeout, .tls,
            .noCertificates, .proxy:
            false
        }
    }

    public var description: String {
        let host = String(url.split(separator: "/", maxSplits: 2).dropFirst().first ?? Substring(url))
        let what =
            switch kind {
            case .malformedRequest: "the request cannot be sent"
            case .nameNotFound: "the name \(host) does not exist"
            case .nameServerFailed: "the name server gave no answer for \(host)"
            case .refused: "\(host) refused the connection"
            case .networkUnreachable: "there is no route to \(host)"
            case .connectTimeout: "\(host) did not answer the connection attempt in time"
            case .timeout: "\(host) did not finish its answer in time"
            case .stalled(let time): "\(host) sent nothing more for \(time.spoken)"
            case .tooSlow(let rate): "\(host) sends less than \(ByteCount(rate)) a second"
            case .reset: "\(host) broke the connection"
            case .truncated: "\(host) ended the connection before the end of its answer"
            case .tls(.expired): "the certificate of \(host) has expired (or the clock here is wrong)"
            case .tls(.notYetValid): "the certificate of \(host) is not valid yet (or the clock here is wrong)"
            case .tls(.wrongHost): "the certificate that \(host) shows is for another name"
            case .tls(.unknownAuthority): "the certificate of \(host) is signed by no authority that is trusted here"
            case .tls(.protocolVersion): "\(host) speaks neither TLS 1.2 nor TLS 1.3 on this port"
            case .tls(.other): "no TLS connection with \(host)"
            case .noCertificates(let notFound): notFound.description
            case .proxy: "the proxy did not let the connection to \(host) through"
            case .tooLarge(let limit): "the answer is larger than \(ByteCount(limit))"
            case .malformedAnswer: "what \(host) sent is no HTTP answer"
            case .other: "the transfer failed"
            }
        return "\(url): \(what)" + (detail.isEmpty ? "" : " (\(detail))")
    }
}

extension HTTPFailure: HTTPTransportFailure {
    public var isTimeout: Bool {
        switch kind {
        case .connectTimeout, .timeout, .stalled, .tooSlow: true
        default: false
        }
    }

    /// No route counts as nobody there: both pass when the network, or the other side, has come up.
    public var isRefused: Bool { kind == .refused || kind == .networkUnreachable }

    public var isTooLarge: Bool {
        if case .tooLarge = kind { true } else { false }
    }
}
