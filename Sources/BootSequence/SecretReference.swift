internal import ConfigTemplates
internal import HostSystem

/// Where a secret is kept, as the settings name it: `{ secret: "file:/etc/amorce/db.password" }`.
enum SecretReference: Equatable {
    case file(String)
    case environment(String)

    /// Throws what is wrong with it, in words that follow the setting's name.
    init(parsing text: String) throws(Unusable) {
        let scheme = text.prefix { $0 != ":" }
        let rest = String(text.dropFirst(scheme.count + 1))
        switch scheme {
        case "file" where rest.hasPrefix("/"): self = .file(rest)
        case "env" where !rest.isEmpty: self = .environment(rest)
        case "secretsmanager", "ssm":
            throw Unusable(reason: "refers to \(scheme):, which this version cannot ask; use file: or env:")
        default: throw Unusable(reason: "must be file:/an/absolute/path or env:NAME")
        }
    }

    struct Unusable: Error {
        let reason: String
    }
}

/// Turns the nodes of the settings into values, reading what secret references lead to. What cannot be read is a problem that
/// names the reference and never its content.
struct SecretResolver {
    let layout: HostLayout
    let environment: [String: String]
    static let sizeLimit = 64 << 10

    /// The value of a node as templates see it.
    func value(_ node: SettingsTree, path: String, problems: ProblemList) -> TemplateValue {
        switch node.content {
        case .scalar(let text, let isPlain):
            if node.isNull { return .null }
            if isPlain, ["true", "false"].contains(text.lowercased()) { return .boolean(text.lowercased() == "true") }
            return .text(Array(text.utf8), isSecret: Self.isSecretName(path))
        case .list(let items):
            return .list(items.map { value($0, path: path, problems: problems) })
        case .map(let entries):
            if entries.count == 1, entries[0].key == "secret" {
                guard let secret = resolve(entries[0].value, path: path, problems: problems) else { return .null }
                return .text(secret.revealedBytes, isSecret: true)
            }
            var map: [String: TemplateValue] = [:]
            for entry in entries {
                map[entry.key] = value(entry.value, path: path + "." + entry.key, problems: problems)
            }
            return .map(map)
        }
    }

    /// A setting that is a secret whole: `{ secret: … }`, or its text.
    func secret(_ node: SettingsTree, path: String, problems: ProblemList) -> Secret? {
        switch node.content {
        case .scalar(let text, _): return Secret(text)
        case .map(let entries) where entries.count == 1 && entries[0].key == "secret":
            return resolve(entries[0].value, path: path, problems: problems)
        default:
            problems.add(node.origin, "`\(path)` must be { secret: \"file:/a/path\" } or a text")
            return nil
        }
    }

    private func resolve(_ node: SettingsTree, path: String, problems: ProblemList) -> Secret? {
        guard case .scalar(let text, _) = node.content else {
            problems.add(node.origin, "`\(path).secret` must be a reference such as file:/a/path")
            return nil
        }
        do {
            switch try SecretReference(parsing: text) {
            case .environment(let name):
                if let value = environment[name] { return Secret(value) }
                problems.add(
                    node.origin, "`\(path).secret`: the environment has no variable \(Printable.text(name, limit: 60))")
            case .file(let file):
                return Secret(
                    bytes: Self.withoutNewline(try FileReading.bytes(layout.path(file), limit: Self.sizeLimit)))
            }
        } catch let unusable as SecretReference.Unusable {
            problems.add(node.origin, "`\(path).secret` \(unusable.reason)")
        } catch {
            problems.add(node.origin, "`\(path).secret`: \(error)")
        }
        return nil
    }

    /// Editors end a file with a newline; it is no part of the secret.
    private static func withoutNewline(_ bytes: [UInt8]) -> ArraySlice<UInt8> {
        var slice = bytes[...]
        if slice.last == 0x0a { slice.removeLast() }
        if slice.last == 0x0d { slice.removeLast() }
        return slice
    }

    /// Whether the name alone says that the value must not be shown: `db.password`, `auth-key`, `api_token`.
    static func isSecretName(_ path: String) -> Bool {
        let words = ["pass", "pwd", "secret", "token", "salt", "credential", "key", "dsn", "private"]
        return path.lowercased().split(separator: ".").contains { part in words.contains { part.contains($0) } }
    }
}
