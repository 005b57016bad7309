public import HostSystem

/// A seed directory of cloud-init's NoCloud source: the first of `HostLayout.seedFolders` that holds both `meta-data` and
/// `user-data`. One without the other is no seed, as for cloud-init. `vendor-data` and `network-config` are not looked at.
///
/// `meta-data` is JSON, or the flat YAML that people write there: lines of `key: value`. Nested lines are skipped. Used are
/// `instance-id` (else `nocloud`, as cloud-init calls it), `region`, `availability-zone`, and `local-hostname`, which becomes
/// the tag of that name.
public struct NoCloudSeed: MetadataProvider {
    static let limit = 1 << 20

    public let name = "NoCloud seed"
    private let layout: HostLayout
    private let log: Log

    public init(layout: HostLayout, log: Log = .silent) {
        self.layout = layout
        self.log = log
    }

    public func read(stop: StopFlag) throws -> InstanceData? {
        for folder in layout.seedFolders {
            guard let metadata = try bytes(folder + "/meta-data") else {
                // Worth a word where the other half is there: somebody meant it to be used.
                if Files.exists(folder + "/user-data") { log.detail("\(folder) is no seed: it has no meta-data") }
                continue
            }
            guard let userData = try bytes(folder + "/user-data") else {
                log.detail("\(folder) is no seed: it has no user-data")
                continue
            }
            let values = try Self.values(in: metadata, path: folder + "/meta-data")
            let id = values["instance-id"] ?? values["instance_id"] ?? ""
            let hostname = values["local-hostname"]
            return InstanceData(
                identity: InstanceIdentity(
                    platform: .nocloud, id: id.isEmpty ? "nocloud" : id, region: values["region"],
                    zone: values["availability-zone"] ?? values["availability_zone"],
                    tags: hostname.map { ["local-hostname": $0] } ?? [:]),
                userData: userData.isEmpty ? nil : Secret(bytes: userData),
                source: "the NoCloud seed in \(folder)")
        }
        return nil
    }

    private func bytes(_ path: String) throws -> [UInt8]? {
        do {
            return try FileReading.bytesIfPresent(path, limit: Self.limit)
        } catch let error as HostError {
            throw MetadataProblem.file(path: path, why: error.reason)
        } catch is FileReading.NotRegular {
            throw MetadataProblem.file(path: path, why: "is no regular file")
        } catch is FileReading.TooLarge {
            throw MetadataProblem.tooLarge(item: path, limit: Self.limit)
        }
    }

    static func values(in bytes: [UInt8], path: String) throws(MetadataProblem) -> [String: String] {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw .file(path: path, why: "is not UTF-8 text")
        }
        // A NUL from a padded image, or an escape, has no place in an identity.
        if text.unicodeScalars.contains(where: { $0.value < 0x20 && !"\n\r\t".unicodeScalars.contains($0) }) {
            throw .file(path: path, why: "holds control characters")
        }
        let start = text.drop { $0.isWhitespace || $0 == "\u{feff}" }
        if start.hasPrefix("{") {
            guard let members = JSONDocument(Array(start.utf8))?.object else {
                throw .file(path: path, why: "is not valid JSON")
            }
            return members.compactMapValues(\.text)
        }
        return try flat(start, path: path)
    }

    /// The first document's unindented `key: value` lines.
    private static func flat(_ text: Substring, path: String) throws(MetadataProblem) -> [String: String] {
        var result: [String: String] = [:]
        for line in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
            if line == "---" || line.isEmpty || line.first == "#" || line.first?.isWhitespace == true { continue }
            if line == "..." { break }
            guard let colon = line.firstIndex(of: ":") else { continue }
            let rest = line[line.index(after: colon)...]
            guard rest.isEmpty || rest.first?.isWhitespace == true else { continue }
            let key = unquoted(line[..<colon])
            guard let key, let value = unquoted(rest) else {
                throw .file(
                    path: path,
                    why: "has a value for \(Printable.text(String(line[..<colon]), limit: 60)) "
                        + "that amorce cannot read: write it without quotes or escapes, or write the file as JSON")
            }
            // A block or a nested mapping follows: nothing that is used is one.
            if value.isEmpty || value == "|" || value == ">" { continue }
            result[key] = value
        }
        return result
    }

    /// A plain or quoted YAML scalar of one line, or nil for one that needs a real parser.
    private static func unquoted(_ raw: Substring) -> String? {
        let text = trimmed(raw)
        guard let quote = text.first, quote == "\"" || quote == "'" else {
            // A comment starts at a `#` behind a blank.
            if let comment = text.firstRange(of: " #") { return String(trimmed(text[..<comment.lowerBound])) }
            return text.first.map { "&*!{[|>%@`".contains($0) && text.count > 1 } == true ? nil : String(text)
        }
        let body = text.dropFirst()
        guard let end = body.firstIndex(of: quote) else { return nil }
        let rest = trimmed(body[body.index(after: end)...])
        let value = body[..<end]
        guard rest.isEmpty || rest.first == "#", !(quote == "\"" && value.contains("\\")) else { return nil }
        return String(value)
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var result = text.drop(while: \.isWhitespace)
        while result.last?.isWhitespace == true { result.removeLast() }
        return result
    }
}
