/// One entity of a MIME message (RFC 2045, RFC 2046): its header and its body as it came, with the line on which the body
/// starts. Tolerant where Python's `email`, which cloud-init reads with, is: bare LF, a missing last boundary, unknown headers.
struct MIMEEntity {
    /// Names in lower case; the first of a name counts.
    let header: [String: String]
    let body: ArraySlice<UInt8>
    /// From 1, counted from the start of the whole message.
    let firstLine: Int

    private static let headerLimit = 200

    /// Nil where the bytes do not start with a header. `line` is the number of their first line.
    init?(_ bytes: ArraySlice<UInt8>, line: Int = 1, mayLackHeader: Bool = false) {
        var fields: [String: String] = [:]
        var lines = LineReader(bytes, number: line)
        var current: (name: String, value: String)?
        var count = 0
        func keep() {
            if let current, fields[current.name] == nil { fields[current.name] = current.value }
        }
        while true {
            let before = lines
            guard let text = lines.next() else { break }
            if text.isEmpty { break }
            count += 1
            let shown = String(decoding: text, as: UTF8.self)
            if text.first == 0x20 || text.first == 0x09, current != nil {
                // A folded line goes on with the field before it (RFC 5322, section 2.2.3).
                current?.value += " " + Self.trimmed(shown[...])
                continue
            }
            keep()
            current = nil
            // A mailbox's `From ` line may stand before the first field.
            if count == 1, shown.hasPrefix("From ") { continue }
            let colon = shown.firstIndex(of: ":") ?? shown.startIndex
            let name = shown[..<colon]
            guard count <= Self.headerLimit, !name.isEmpty, name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
                // Not a field, and no blank line before it: the body starts here, as `email` takes it.
                lines = before
                break
            }
            current = (name.lowercased(), Self.trimmed(shown[shown.index(after: colon)...]))
        }
        keep()
        guard mayLackHeader || !fields.isEmpty else { return nil }
        header = fields
        body = lines.rest
        firstLine = lines.number
    }

    /// In lower case, without parameters: `text/x-amorce`; `text/plain` where none is said (RFC 2045, section 5.2).
    var type: String {
        guard let value = header["content-type"], !value.isEmpty else { return "text/plain" }
        return Self.trimmed(value.prefix { $0 != ";" }).lowercased()
    }

    var transferEncoding: String {
        Self.trimmed((header["content-transfer-encoding"] ?? "7bit").prefix { $0 != ";" }).lowercased()
    }

    /// The name that whoever made the message gave the part.
    var fileName: String? {
        Self.parameter("filename", of: header["content-disposition"])
            ?? Self.parameter("name", of: header["content-type"])
    }

    var charset: String { Self.parameter("charset", of: header["content-type"])?.lowercased() ?? "us-ascii" }

    /// The parts of a multipart, in order; empty for anything else and where no boundary is given.
    func parts(limit: Int) -> [MIMEEntity] {
        guard type.hasPrefix("multipart/"), let boundary = Self.parameter("boundary", of: header["content-type"]),
            !boundary.isEmpty
        else { return [] }
        let delimiter = Array("--".utf8) + Array(boundary.utf8)
        var result: [MIMEEntity] = []
        var lines = LineReader(body, number: firstLine)
        var start: (index: Int, line: Int)?
        func close(before index: Int) {
            guard let start, result.count < limit else { return }
            // The line break before a delimiter belongs to the delimiter (RFC 2046, section 5.1.1).
            var end = index
            if end > start.index, body[end - 1] == 0x0a { end -= 1 }
            if end > start.index, body[end - 1] == 0x0d { end -= 1 }
            if let part = MIMEEntity(body[start.index..<end], line: start.line, mayLackHeader: true) {
                result.append(part)
            }
        }
        while true {
            let index = lines.rest.startIndex
            guard let line = lines.next() else { break }
            guard line.starts(with: delimiter) else { continue }
            let tail = line.dropFirst(delimiter.count).filter { $0 != 0x20 && $0 != 0x09 }
            guard tail.isEmpty || tail == [0x2d, 0x2d] else { continue }
            close(before: index)
            if !tail.isEmpty { return result }
            start = (lines.rest.startIndex, lines.number)
        }
        close(before: body.endIndex)
        return result
    }

    /// A parameter of a structured field, quoted or not. RFC 2231's continuations are not read: cloud-init's parts have none.
    private static func parameter(_ name: String, of value: String?) -> String? {
        guard let value else { return nil }
        var rest = value.drop { $0 != ";" }
        while let semicolon = rest.first, semicolon == ";" {
            rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" }
            let key = trimmed(rest.prefix { $0 != "=" && $0 != ";" }).lowercased()
            rest = rest.drop { $0 != "=" && $0 != ";" }
            guard rest.first == "=" else { continue }
            rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" }
            var text = ""
            if rest.first == "\"" {
                rest = rest.dropFirst()
                while let character = rest.popFirst(), character != "\"" {
                    if character == "\\", let escaped = rest.popFirst() {
                        text.append(escaped)
                    } else {
                        text.append(character)
                    }
                }
                rest = rest.drop { $0 != ";" }
            } else {
                text = trimmed(rest.prefix { $0 != ";" })
                rest = rest.drop { $0 != ";" }
            }
            if key == name { return text }
        }
        return nil
    }

    private static func trimmed(_ text: Substring) -> String {
        var result = text.drop(while: \.isWhitespace)
        while result.last?.isWhitespace == true { result.removeLast() }
        return String(result)
    }
}

/// Lines of bytes, without their LF or CRLF, counted.
struct LineReader {
    private(set) var rest: ArraySlice<UInt8>
    /// Of the line that `next` gives next.
    private(set) var number: Int

    init(_ bytes: ArraySlice<UInt8>, number: Int = 1) {
        rest = bytes
        self.number = number
    }

    mutating func next() -> ArraySlice<UInt8>? {
        guard !rest.isEmpty else { return nil }
        var line = rest
        if let end = rest.firstIndex(of: 0x0a) {
            line = rest[..<end]
            rest = rest[(end + 1)...]
        } else {
            rest = rest[rest.endIndex...]
        }
        number += 1
        if line.last == 0x0d { line.removeLast() }
        return line
    }
}
