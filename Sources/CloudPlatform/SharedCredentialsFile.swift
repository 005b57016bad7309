internal import HostSystem

/// The credentials file that the AWS command line and SDKs share: sections in brackets, `name = value` lines. Pure.
enum SharedCredentialsFile {
    /// The settings of one profile, or nil where the file has no such section. A later section of the same name adds to the
    /// first, a later line wins; indented lines (nested settings) and comments are skipped.
    static func profile(_ name: String, in text: String) -> [String: String]? {
        var result: [String: String]?
        var isInside = false
        for line in text.split(whereSeparator: \.isNewline) {
            guard let first = line.first, !first.isWhitespace, first != "#", first != ";" else { continue }
            if first == "[" {
                let title = trimmed(line.dropFirst().prefix { $0 != "]" })
                // `[profile NAME]` is how the configuration file says it; people write it here as well.
                isInside = title == name || title == "profile \(name)"
                if isInside, result == nil { result = [:] }
            } else if isInside, let equals = line.firstIndex(of: "=") {
                result?[trimmed(line[..<equals]).lowercased()] = trimmed(line[line.index(after: equals)...])
            }
        }
        return result
    }

    static func credentials(
        profile name: String, in text: String, path: String
    ) throws(CredentialProblem) -> Credentials? {
        guard let values = profile(name, in: text) else { return nil }
        let key = values["aws_access_key_id"] ?? ""
        let secret = values["aws_secret_access_key"] ?? ""
        let shown = Printable.text(name, limit: 80)
        if key.isEmpty && secret.isEmpty {
            let others = ["role_arn", "credential_process", "sso_session", "sso_start_url"]
            if let other = others.first(where: { values[$0] != nil }) {
                throw .file(
                    path: path, why: "the profile \(shown) uses \(other), which amorce does not; it needs a key pair")
            }
            return nil
        }
        guard !key.isEmpty, !secret.isEmpty else {
            let missing = key.isEmpty ? "aws_access_key_id" : "aws_secret_access_key"
            throw .file(path: path, why: "the profile \(shown) has no \(missing)")
        }
        let token = values["aws_session_token"] ?? ""
        return Credentials(
            accessKey: key, secretKey: Secret(secret), sessionToken: token.isEmpty ? nil : Secret(token),
            origin: "profile \(shown)")
    }

    private static func trimmed(_ text: Substring) -> String {
        var result = text.drop(while: \.isWhitespace)
        while result.last?.isWhitespace == true { result.removeLast() }
        return String(result)
    }
}
