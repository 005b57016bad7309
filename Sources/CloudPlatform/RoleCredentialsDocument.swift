internal import FoundationEssentials
internal import HostSystem

/// What the metadata service gives for a role, checked (Amazon EC2 User Guide, "Retrieve security credentials from instance
/// metadata"). A status of 200 says nothing: the service also sends IAM's refusal with it.
enum RoleCredentialsDocument {
    static func credentials(in body: [UInt8], role: String) throws(CredentialProblem) -> Credentials {
        func malformed(_ why: String) -> CredentialProblem { .malformed(role: role, why: why) }
        guard !body.isEmpty else { throw malformed("nothing") }
        guard let members = JSONDocument(body)?.object else { throw malformed("no JSON object") }
        if let code = members["Code"]?.text, code != "Success" {
            throw .refused(role: role, code: code, message: members["Message"]?.text ?? "")
        }
        func field(_ name: String) throws(CredentialProblem) -> String {
            guard let text = members[name]?.text, !text.isEmpty else { throw malformed("no \(name)") }
            // It becomes part of a header.
            guard text.utf8.count <= 16384, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
                throw malformed("an unusable \(name)")
            }
            return text
        }
        let accessKey = try field("AccessKeyId")
        let secretKey = try field("SecretAccessKey")
        let token = try field("Token")
        guard let expires = seconds(try field("Expiration")) else { throw malformed("an Expiration that is no time") }
        return Credentials(
            accessKey: accessKey, secretKey: Secret(secretKey), sessionToken: Secret(token), expires: expires,
            origin: "instance role \(role)")
    }

    /// Seconds since 1970 of `2026-11-24T18:00:00Z`, with or without a fraction.
    static func seconds(_ text: String) -> Int64? {
        let plain = Date.ISO8601FormatStyle()
        let fractional = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        guard let date = (try? plain.parse(text)) ?? (try? fractional.parse(text)) else { return nil }
        let seconds = date.timeIntervalSince1970.rounded(.down)
        return seconds > 0 && seconds < 1e12 ? Int64(seconds) : nil
    }
}
