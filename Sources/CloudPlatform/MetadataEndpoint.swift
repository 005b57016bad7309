internal import HostSystem

/// Where the EC2 instance metadata service answers, by the variables that the AWS SDKs share: an endpoint beats a mode, an
/// empty variable is an unset one. The SDKs' configuration file (`ec2_metadata_service_endpoint` in ~/.aws/config) is not read.
struct MetadataEndpoint: Sendable, Equatable {
    /// Without a trailing slash.
    let url: String

    static let endpointVariable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    static let modeVariable = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
    static let disablingVariable = "AWS_EC2_METADATA_DISABLED"

    init(environment: [String: String]) throws(MetadataProblem) {
        if let endpoint = environment[Self.endpointVariable], !endpoint.isEmpty {
            url = try Self.checked(endpoint)
            return
        }
        // Both addresses: Amazon EC2 User Guide, "Access instance metadata for an EC2 instance".
        switch environment[Self.modeVariable]?.lowercased() ?? "" {
        case "", "ipv4": url = "http://169.254.169.254"
        case "ipv6": url = "http://[fd00:ec2::254]"
        default:
            throw .environment(variable: Self.modeVariable, why: "must be IPv4 or IPv6")
        }
    }

    /// The SDKs take `true` in any case of letters, and nothing else, for yes.
    static func isDisabled(_ environment: [String: String]) -> Bool {
        environment[disablingVariable]?.lowercased() == "true"
    }

    private static func checked(_ text: String) throws(MetadataProblem) -> String {
        let lowered = text.lowercased()
        let scheme = ["http://", "https://"].first { lowered.hasPrefix($0) }
        guard let scheme else {
            throw .environment(variable: endpointVariable, why: "must be a URL that starts with http:// or https://")
        }
        let rest = text.dropFirst(scheme.count)
        // A name and password, a query or a fragment have no place there, and a space or control byte would end up in the
        // request line.
        let isPlain = rest.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && !"@?#\\\"<>".utf8.contains($0) }
        guard isPlain, let first = rest.first, first != "/", first != ":" else {
            throw .environment(variable: endpointVariable, why: "is not a URL of a host, a port and a path alone")
        }
        var trimmed = text
        while trimmed.hasSuffix("/") { trimmed.removeLast() }
        return trimmed
    }
}
