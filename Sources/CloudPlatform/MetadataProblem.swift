internal import HostSystem

/// Why a platform did not tell who this instance is. Never holds a token, a key or user-data.
public enum MetadataProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// No answer of any kind, until patience ran out.
    case unreachable(endpoint: String, reason: String)
    /// The address accepts connections but never answers the request for a token.
    case hopLimit(endpoint: String)
    /// 403 for the token: instance metadata is switched off for this instance.
    case disabled(endpoint: String)
    /// There is no token endpoint: something else than EC2 answers at that address.
    case foreign(endpoint: String)
    /// Switched off by AWS_EC2_METADATA_DISABLED.
    case switchedOff
    /// 403 for an item.
    case forbidden(path: String)
    /// 401 for a token that was issued a moment before.
    case tokenRefused(path: String)
    /// Answered 429 or 5xx until patience ran out.
    case failing(path: String, status: Int)
    /// Answered before, and then no more until patience ran out.
    case silent(path: String, reason: String)
    /// An answer that the protocol does not know.
    case unexpected(path: String, status: Int)
    /// An item that must be there is not.
    case absent(path: String)
    /// An answer that is not what the item must look like; `why` quotes nothing secret.
    case malformed(item: String, why: String)
    case tooLarge(item: String, limit: Int)
    /// An environment variable that cannot be understood.
    case environment(variable: String, why: String)
    /// A NoCloud seed or a recording that cannot be read or understood.
    case file(path: String, why: String)

    public var description: String {
        switch self {
        case .unreachable(let endpoint, let reason): "instance metadata at \(endpoint) does not answer: \(reason)"
        case .hopLimit(let endpoint):
            "instance metadata at \(endpoint) accepts connections but does not answer the request for a session token: most "
                + "often its response hop limit is too low for a container or a network namespace"
        case .disabled(let endpoint):
            "instance metadata is disabled for this instance: \(endpoint) refused a session token (403)"
        case .foreign(let endpoint): "what answers at \(endpoint) is not EC2: it has no session tokens"
        case .switchedOff: "instance metadata is switched off by \(MetadataEndpoint.disablingVariable)"
        case .forbidden(let path): "instance metadata refused \(path) (403)"
        case .tokenRefused(let path): "instance metadata refused \(path) with a session token it had just issued (401)"
        case .failing(let path, let status): "instance metadata keeps failing for \(path) (\(status))"
        case .silent(let path, let reason): "instance metadata stopped answering at \(path): \(reason)"
        case .unexpected(let path, let status): "instance metadata answered \(path) with status \(status)"
        case .absent(let path): "instance metadata has no \(path)"
        case .malformed(let item, let why): "instance metadata gave a malformed \(item): \(why)"
        case .tooLarge(let item, let limit): "\(item) is larger than \(ByteCount(limit))"
        case .environment(let variable, let why): "\(variable) \(why)"
        case .file(let path, let why): "\(Printable.text(path)): \(why)"
        }
    }

    /// Whether the same run, later, may go otherwise without anybody changing anything.
    public var retryCanHelp: Bool {
        switch self {
        case .unreachable, .failing, .silent, .tokenRefused: true
        case .hopLimit, .disabled, .foreign, .switchedOff, .forbidden, .unexpected, .absent, .malformed, .tooLarge,
            .environment, .file:
            false
        }
    }

    /// What the person can do next.
    public var advice: String? {
        switch self {
        case .unreachable:
            "On a machine without instance metadata set AWS_EC2_METADATA_DISABLED=true, or give --metadata FILE."
        case .hopLimit:
            "Raise it: aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2"
        case .disabled, .forbidden:
            "Switch it on: aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled"
        case .foreign: "Set AWS_EC2_METADATA_DISABLED=true on a platform that is not EC2."
        case .tooLarge: "Put the settings into a file in the bucket and name it in the user-data with include:."
        default: nil
        }
    }
}
