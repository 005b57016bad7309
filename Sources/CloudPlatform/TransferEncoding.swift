/// The content transfer encodings of RFC 2045, section 6, strictly: where a byte cannot be, the answer is nil and not a guess.
enum TransferEncoding {
    /// Base64 with padding and without line breaks, as headers carry it.
    static func encodedBase64(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var result: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - group.count))
            for place in 0..<4 {
                result.append(place <= group.count ? alphabet[bits >> (18 - 6 * place) & 63] : UInt8(ascii: "="))
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// Line breaks and blanks anywhere are skipped, padding may be missing at the very end; anything else is no base64.
    static func base64(_ bytes: some Sequence<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        var padding = 0
        for byte in bytes {
            let value: UInt32
            switch byte {
            case 0x41...0x5a: value = UInt32(byte) - 0x41
            case 0x61...0x7a: value = UInt32(byte) - 0x61 + 26
            case 0x30...0x39: value = UInt32(byte) - 0x30 + 52
            case 0x2b: value = 62
            case 0x2f: value = 63
            case 0x3d:
                padding += 1
                continue
            case 0x20, 0x09, 0x0a, 0x0d: continue
            default: return nil
            }
            if padding > 0 { return nil }
            bits = bits << 6 | value
            count += 1
            if count % 4 == 0 {
                result.append(contentsOf: [UInt8(bits >> 16 & 255), UInt8(bits >> 8 & 255), UInt8(bits & 255)])
                bits = 0
            }
        }
        switch count % 4 {
        case 0: return padding == 0 ? result : nil
        case 2: result.append(UInt8(bits >> 4 & 255))
        case 3: result.append(contentsOf: [UInt8(bits >> 10 & 255), UInt8(bits >> 2 & 255)])
        default: return nil
        }
        return padding == 0 || padding == 4 - count % 4 ? result : nil
    }

    /// RFC 2045, section 6.7. A lone `=` that is no escape is refused.
    static func quotedPrintable(_ bytes: [UInt8]) -> [UInt8]? {
        var result: [UInt8] = []
        var lines = bytes.split(separator: 0x0a, omittingEmptySubsequences: false)
        let last = lines.popLast() ?? []
        for line in lines {
            guard let isSoft = append(line, to: &result) else { return nil }
            if !isSoft { result.append(0x0a) }
        }
        guard append(last, to: &result) != nil else { return nil }
        return result
    }

    /// Whether the line ends in a soft break; nil where it is malformed.
    private static func append(_ line: ArraySlice<UInt8>, to result: inout [UInt8]) -> Bool? {
        // Blanks at the end of a line were added on the way (rule 3); a CR is the other half of the line break.
        var line = line
        while let end = line.last, end == 0x20 || end == 0x09 || end == 0x0d { line.removeLast() }
        var index = line.startIndex
        while index < line.endIndex {
            let byte = line[index]
            index += 1
            guard byte == 0x3d else {
                result.append(byte)
                continue
            }
            if index == line.endIndex { return true }
            guard line.endIndex - index >= 2, let high = digit(line[index]), let low = digit(line[index + 1]) else {
                return nil
            }
            result.append(high << 4 | low)
            index += 2
        }
        return false
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }
}
