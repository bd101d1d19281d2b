//! The specification's statements about single packets, by their numbers (MQTT 5 unless 3.1.1 is said).

use drover_mqtt::{DecodeError, Decoder, Packet, PacketType, Place, ReasonCode, Side, Version};

fn read(sender: Side, version: Version, bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    Decoder::new(sender, version).decode(bytes)
}

/// What a server makes of these bytes of a client.
fn refused(version: Version, bytes: &[u8]) -> DecodeError {
    match read(Side::Client, version, bytes) {
        Err(error) => error,
        other => panic!("{bytes:02x?} was read as {other:?}"),
    }
}

fn accepted(version: Version, bytes: &[u8]) -> Packet<'_> {
    match read(Side::Client, version, bytes) {
        Ok(Some((packet, taken))) if taken == bytes.len() => packet,
        other => panic!("{bytes:02x?} was read as {other:?}"),
    }
}

/// A packet with this first byte and these fields.
fn packet(first: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    assert!(body.len() < 128, "one byte of length is enough for these tests");
    [&[first, body.len() as u8], body.as_slice()].concat()
}

/// A CONNECT with this protocol, these flags and these fields behind the keep-alive.
fn connect(protocol: &[u8], flags: u8, fields: &[u8]) -> Vec<u8> {
    packet(0x10, &[protocol, &[flags, 0, 60], fields])
}

const V311: &[u8] = b"\0\x04MQTT\x04";
const V5: &[u8] = b"\0\x04MQTT\x05";

#[test]
fn mqtt_1_5_4_1_text_that_is_no_utf_8_is_refused() {
    for bad in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\xaf"] {
        let topic = [&[0, bad.len() as u8], bad].concat();
        assert_eq!(refused(Version::V311, &packet(0x30, &[&topic])), DecodeError::NotUtf8, "{bad:02x?}");
        assert_eq!(refused(Version::V5, &packet(0x30, &[&topic, b"\0"])), DecodeError::NotUtf8, "{bad:02x?}");
    }
    assert_eq!(DecodeError::NotUtf8.reason_code(), ReasonCode::MalformedPacket);
}

#[test]
fn mqtt_1_5_4_2_the_null_character_is_refused() {
    assert_eq!(refused(Version::V311, &packet(0x30, &[b"\0\x03a\0b"])), DecodeError::NullCharacter);
    assert_eq!(refused(Version::V5, &connect(V5, 2, b"\0\0\x01\0")), DecodeError::NullCharacter);
}

#[test]
fn mqtt_1_5_4_3_a_byte_order_mark_is_part_of_the_text() {
    let bytes = packet(0x30, &["\0\x04\u{feff}a".as_bytes()]);
    let Packet::Publish(publish) = accepted(Version::V311, &bytes) else { panic!("a PUBLISH") };
    assert_eq!(publish.topic, "\u{feff}a");
}

#[test]
fn mqtt_1_5_5_1_a_length_in_a_longer_form_than_needed_is_refused_in_version_5() {
    let ping = [0xc0, 0x80, 0x00];
    assert_eq!(refused(Version::V5, &ping), DecodeError::VarInt);
    assert_eq!(accepted(Version::V311, &ping), Packet::PingReq);
    assert_eq!(refused(Version::V5, &packet(0x30, &[b"\0\x01a", b"\x80\0"])), DecodeError::VarInt);
}

#[test]
fn section_2_1_4_a_remaining_length_of_five_bytes_is_refused() {
    assert_eq!(refused(Version::V311, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]), DecodeError::VarInt);
}

#[test]
fn section_2_1_2_packet_type_0_is_refused() {
    assert_eq!(refused(Version::V5, &[0x00, 0x00]), DecodeError::ReservedType);
}

#[test]
fn section_2_1_2_packets_of_the_other_side_and_auth_in_3_1_1_are_refused() {
    for (first, kind) in [(0x20, PacketType::ConnAck), (0x90, PacketType::SubAck), (0xd0, PacketType::PingResp)] {
        let expected = DecodeError::Direction { packet: kind, sender: Side::Client, version: Version::V5 };
        assert_eq!(refused(Version::V5, &[first, 0]), expected);
        assert_eq!(expected.reason_code(), ReasonCode::ProtocolError);
    }
    assert!(matches!(refused(Version::V311, &[0xf0, 0]), DecodeError::Direction { packet: PacketType::Auth, .. }));
    let server_disconnects = read(Side::Server, Version::V311, &[0xe0, 0]);
    assert!(matches!(server_disconnects, Err(DecodeError::Direction { packet: PacketType::Disconnect, .. })));
}

#[test]
fn mqtt_2_1_3_1_reserved_flags_of_the_fixed_header_are_refused() {
    for kind in PacketType::ALL.into_iter().filter(|kind| *kind != PacketType::Publish) {
        let with_two = [PacketType::PubRel, PacketType::Subscribe, PacketType::Unsubscribe].contains(&kind);
        let reserved = if with_two { 2 } else { 0 };
        let sender = if kind.sent_by(Side::Client, Version::V5) { Side::Client } else { Side::Server };
        for flags in (0..16).filter(|flags| *flags != reserved) {
            let bytes = [(kind as u8) << 4 | flags, 0];
            assert_eq!(read(sender, Version::V5, &bytes), Err(DecodeError::Flags { packet: kind, flags }));
        }
    }
}

#[test]
fn mqtt_2_2_1_3_packet_identifier_0_is_refused() {
    let zero = [
        packet(0x32, &[b"\0\x01a", b"\0\0"]),
        packet(0x40, &[b"\0\0"]),
        packet(0x82, &[b"\0\0", b"\0\x01a\0"]),
        packet(0xa2, &[b"\0\0", b"\0\x01a"]),
    ];
    for bytes in zero {
        assert_eq!(refused(Version::V311, &bytes), DecodeError::PacketIdZero, "{bytes:02x?}");
    }
}

#[test]
fn section_2_2_2_2_an_unknown_property_is_refused() {
    assert_eq!(refused(Version::V5, &connect(V5, 2, b"\x02\x7e\0\0\0")), DecodeError::PropertyUnknown { id: 0x7e });
}

#[test]
fn section_2_2_2_2_a_property_is_refused_where_table_2_4_does_not_have_it() {
    let place = Place::Packet(PacketType::Connect);
    let topic_alias = connect(V5, 2, b"\x03\x23\0\x01\0\0");
    assert_eq!(refused(Version::V5, &topic_alias), DecodeError::PropertyNotAllowed { id: 0x23, place });
    let will_delay_outside_the_will = connect(V5, 2, b"\x05\x18\0\0\0\x01\0\0");
    assert_eq!(refused(Version::V5, &will_delay_outside_the_will), DecodeError::PropertyNotAllowed { id: 0x18, place });
}

#[test]
fn sections_3_1_2_11_and_3_3_2_3_a_property_that_may_appear_once_is_refused_twice() {
    let session_expiry_twice = connect(V5, 2, b"\x0a\x11\0\0\0\x01\x11\0\0\0\x01\0\0");
    assert_eq!(refused(Version::V5, &session_expiry_twice), DecodeError::PropertyTwice { id: 0x11 });
    let two_user_properties = connect(V5, 2, b"\x0e\x26\0\x01a\0\x01b\x26\0\x01a\0\x01b\0\0");
    let Packet::Connect(connect) = accepted(Version::V5, &two_user_properties) else { panic!("a CONNECT") };
    assert_eq!(connect.properties.user_properties().collect::<Vec<_>>(), [("a", "b"), ("a", "b")]);
}

#[test]
fn section_3_1_2_11_values_out_of_range_are_refused() {
    for (id, property) in [(0x21, &b"\x03\x21\0\0"[..]), (0x27, b"\x05\x27\0\0\0\0"), (0x17, b"\x02\x17\x02")] {
        let bytes = connect(V5, 2, &[property, b"\0\0"].concat());
        assert_eq!(refused(Version::V5, &bytes), DecodeError::PropertyValue { id });
    }
    assert_eq!(DecodeError::PropertyValue { id: 0x21 }.reason_code(), ReasonCode::ProtocolError);
}

#[test]
fn mqtt_3_1_2_1_a_protocol_that_is_not_mqtt_is_told_from_an_unsupported_version() {
    let other = refused(Version::V311, &connect(b"\0\x04HTTP\x04", 2, b"\0\0"));
    assert_eq!((other, other.connack_version()), (DecodeError::ProtocolName, None));
    assert_eq!(refused(Version::V311, &connect(b"\0\x04mqtt\x04", 2, b"\0\0")), DecodeError::ProtocolName);
}

#[test]
fn mqtt_3_1_2_2_an_unsupported_level_says_which_connack_answers_it() {
    let cases: [(&[u8], u8, Version); 4] = [
        (b"\0\x06MQIsdp\x03", 3, Version::V311),
        (b"\0\x04MQTT\x03", 3, Version::V311),
        (b"\0\x04MQTT\x06", 6, Version::V5),
        (b"\0\x04MQTT\x84", 0x84, Version::V5),
    ];
    for (protocol, level, version) in cases {
        let error = refused(Version::V311, &connect(protocol, 2, b"\0\0"));
        assert_eq!(error, DecodeError::ProtocolLevel { level });
        assert_eq!(error.connack_version(), Some(version));
        assert_eq!(error.reason_code(), ReasonCode::UnsupportedProtocolVersion);
    }
    assert_eq!(ReasonCode::UnsupportedProtocolVersion.connect_return_code(), 1);
}

#[test]
fn mqtt_3_1_2_3_the_reserved_connect_flag_is_refused() {
    assert_eq!(refused(Version::V311, &connect(V311, 0b11, b"\0\0")), DecodeError::ConnectFlags { flags: 0b11 });
}

#[test]
fn mqtt_3_1_2_11_to_13_will_fields_without_a_will_and_will_qos_3_are_refused() {
    for flags in [0b0000_1010, 0b0001_0010, 0b0010_0010, 0b0001_1110] {
        let fields = b"\0\0\0\x01t\0\x01p";
        assert_eq!(refused(Version::V311, &connect(V311, flags, fields)), DecodeError::ConnectFlags { flags });
    }
}

#[test]
fn mqtt_3_1_1_3_1_2_22_a_password_without_a_user_name_is_refused_in_3_1_1_only() {
    let flags = 0b0100_0010;
    assert_eq!(refused(Version::V311, &connect(V311, flags, b"\0\0\0\x01p")), DecodeError::ConnectFlags { flags });
    let bytes = connect(V5, flags, b"\0\0\0\0\x01p");
    let Packet::Connect(connect) = accepted(Version::V5, &bytes) else { panic!("a CONNECT") };
    assert_eq!((connect.user_name, connect.password), (None, Some(&b"p"[..])));
    assert!(!format!("{connect:?}").contains("112"), "the password is not shown");
}

#[test]
fn section_3_1_2_11_9_authentication_data_without_a_method_is_refused() {
    let bytes = connect(V5, 2, b"\x04\x16\0\x01x\0\0");
    assert_eq!(refused(Version::V5, &bytes), DecodeError::AuthenticationDataAlone);
}

#[test]
fn mqtt_3_1_3_1_fields_that_are_missing_or_left_over_are_refused() {
    assert_eq!(refused(Version::V311, &connect(V311, 0b1000_0010, b"\0\0")), DecodeError::Truncated);
    assert_eq!(refused(Version::V311, &connect(V311, 2, b"\0\0!")), DecodeError::TrailingBytes { bytes: 1 });
    assert_eq!(refused(Version::V311, &[0xc0, 1, 0]), DecodeError::TrailingBytes { bytes: 1 });
}

#[test]
fn mqtt_3_2_2_1_and_6_connack_flags_are_refused_when_reserved_or_beside_an_error() {
    let connack = |flags, code| read(Side::Server, Version::V311, &[0x20, 2, flags, code]).map(|_| ());
    assert_eq!(connack(2, 0), Err(DecodeError::ConnAckFlags { flags: 2 }));
    assert_eq!(connack(1, 5), Err(DecodeError::ConnAckFlags { flags: 1 }));
    assert_eq!(connack(0, 6), Err(DecodeError::ReturnCode { code: 6 }));
    assert_eq!(connack(1, 0), Ok(()));
}

#[test]
fn mqtt_3_3_1_2_dup_at_qos_0_is_refused() {
    assert_eq!(refused(Version::V311, &packet(0x38, &[b"\0\x01a"])), DecodeError::DupAtQos0);
}

#[test]
fn mqtt_3_3_1_4_qos_3_is_refused() {
    let error = refused(Version::V311, &packet(0x36, &[b"\0\x01a", b"\0\x01"]));
    assert_eq!((error, error.reason_code()), (DecodeError::Qos, ReasonCode::MalformedPacket));
}

#[test]
fn mqtt_3_3_2_2_a_wildcard_in_a_topic_name_is_refused() {
    for topic in [&b"\0\x03a/+"[..], b"\0\x01#", b"\0\x03a+b"] {
        let error = refused(Version::V311, &packet(0x30, &[topic]));
        assert_eq!((error, error.reason_code()), (DecodeError::TopicWildcard, ReasonCode::TopicNameInvalid));
    }
}

#[test]
fn mqtt_3_3_2_8_topic_alias_0_is_refused_as_an_invalid_alias() {
    let error = refused(Version::V5, &packet(0x30, &[b"\0\x01a", b"\x03\x23\0\0"]));
    assert_eq!((error, error.reason_code()), (DecodeError::TopicAliasZero, ReasonCode::TopicAliasInvalid));
}

#[test]
fn mqtt_3_3_2_14_a_response_topic_with_a_wildcard_is_refused() {
    let error = refused(Version::V5, &packet(0x30, &[b"\0\x01a", b"\x06\x08\0\x03r/#"]));
    assert_eq!(error, DecodeError::PropertyValue { id: 0x08 });
}

#[test]
fn mqtt_3_3_4_6_a_client_s_publish_has_no_subscription_identifier() {
    let bytes = packet(0x30, &[b"\0\x01a", b"\x02\x0b\x07"]);
    let place = Place::Packet(PacketType::Publish);
    assert_eq!(refused(Version::V5, &bytes), DecodeError::PropertyNotAllowed { id: 0x0b, place });
    let from_server = read(Side::Server, Version::V5, &bytes).expect("allowed").expect("complete").0;
    let Packet::Publish(publish) = from_server else { panic!("a PUBLISH") };
    assert_eq!(publish.properties.subscription_ids().map(|id| id.get()).collect::<Vec<_>>(), [7]);
}

#[test]
fn sections_3_4_2_1_and_3_14_2_1_a_reason_and_properties_may_be_left_out() {
    for (bytes, reason) in [
        (&b"\x40\x02\0\x01"[..], ReasonCode::Success),
        (b"\x40\x03\0\x01\x10", ReasonCode::NoMatchingSubscribers),
        (b"\x40\x04\0\x01\x10\0", ReasonCode::NoMatchingSubscribers),
    ] {
        let Packet::PubAck(ack) = accepted(Version::V5, bytes) else { panic!("a PUBACK") };
        assert_eq!(ack.reason, reason);
    }
    let Packet::Disconnect(packet) = accepted(Version::V5, b"\xe0\x01\x04") else { panic!("a DISCONNECT") };
    assert_eq!(packet.reason, ReasonCode::DisconnectWithWill);
}

#[test]
fn mqtt_3_4_2_1_a_reason_code_of_another_packet_is_refused() {
    let packet = PacketType::PubAck;
    assert_eq!(refused(Version::V5, b"\x40\x03\0\x01\x92"), DecodeError::ReasonCode { packet, code: 0x92 });
    assert_eq!(refused(Version::V5, b"\x40\x03\0\x01\x7f"), DecodeError::ReasonCode { packet, code: 0x7f });
}

#[test]
fn mqtt_3_8_3_2_and_3_10_3_2_a_list_without_a_filter_is_refused() {
    let packet = PacketType::Subscribe;
    assert_eq!(refused(Version::V311, b"\x82\x02\0\x01"), DecodeError::NoFilter { packet });
    let packet = PacketType::Unsubscribe;
    assert_eq!(refused(Version::V5, b"\xa2\x03\0\x01\0"), DecodeError::NoFilter { packet });
}

#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_refused() {
    let bytes = packet(0x82, &[b"\0\x01\0", b"\0\x0a$share/g/a", &[0b100]]);
    let error = refused(Version::V5, &bytes);
    assert_eq!((error, error.reason_code()), (DecodeError::NoLocalShared, ReasonCode::ProtocolError));
}

#[test]
fn mqtt_3_8_3_5_reserved_subscription_options_are_refused() {
    for options in [0b11, 0b0011_0000, 0b0100_0000, 0b1000_0000] {
        let bytes = packet(0x82, &[b"\0\x01\0", b"\0\x01a", &[options]]);
        assert_eq!(refused(Version::V5, &bytes), DecodeError::SubscriptionOptions { options });
    }
    let bytes = packet(0x82, &[b"\0\x01", b"\0\x01a", &[0b100]]);
    assert_eq!(refused(Version::V311, &bytes), DecodeError::SubscriptionOptions { options: 0b100 });
}

#[test]
fn mqtt_3_1_1_3_9_3_2_a_suback_of_3_1_1_has_the_codes_0_1_2_and_128() {
    let read_one = |code| read(Side::Server, Version::V311, &[0x90, 3, 0, 1, code]).map(|_| ());
    for code in 0..=255 {
        let expected = if matches!(code, 0 | 1 | 2 | 0x80) {
            Ok(())
        } else {
            Err(DecodeError::ReasonCode { packet: PacketType::SubAck, code })
        };
        assert_eq!(read_one(code), expected);
    }
}

#[test]
fn mqtt_3_14_2_2_a_server_s_disconnect_has_no_session_expiry() {
    let bytes = b"\xe0\x07\0\x05\x11\0\0\0\x01";
    let place = Place::Packet(PacketType::Disconnect);
    let from_server = read(Side::Server, Version::V5, bytes);
    assert_eq!(from_server, Err(DecodeError::PropertyNotAllowed { id: 0x11, place }));
    assert!(matches!(accepted(Version::V5, bytes), Packet::Disconnect(_)));
}

#[test]
fn mqtt_4_7_3_1_an_empty_topic_is_refused_unless_an_alias_stands_for_it() {
    assert_eq!(refused(Version::V311, &packet(0x30, &[b"\0\0"])), DecodeError::TopicEmpty);
    assert_eq!(refused(Version::V5, &packet(0x30, &[b"\0\0", b"\0"])), DecodeError::TopicEmpty);
    assert!(matches!(accepted(Version::V5, &packet(0x30, &[b"\0\0", b"\x03\x23\0\x01"])), Packet::Publish(_)));
    assert_eq!(refused(Version::V311, &packet(0x82, &[b"\0\x01", b"\0\0\0"])), DecodeError::TopicEmpty);
}

#[test]
fn table_2_6_every_reason_code_is_known_by_number_and_name() {
    assert_eq!(ReasonCode::ALL.len(), 43);
    for code in 0..=u8::MAX {
        if let Ok(reason) = ReasonCode::try_from(code) {
            assert_eq!(reason as u8, code);
            assert!(!reason.packets().is_empty() && !reason.name().is_empty());
            assert_eq!(reason.is_error(), code >= 0x80);
        }
    }
    assert_eq!(ReasonCode::MaximumConnectTime.to_string(), "maximum connect time (0xa0)");
}

#[test]
fn table_3_1_of_3_1_1_return_codes_map_to_reasons_and_back() {
    for code in 0..=5 {
        let reason = ReasonCode::from_connect_return_code(code).expect("not reserved");
        assert_eq!(reason.connect_return_code(), code);
    }
    assert_eq!(ReasonCode::from_connect_return_code(6), None);
    assert_eq!(ReasonCode::Banned.connect_return_code(), 5);
    assert_eq!(ReasonCode::ServerBusy.connect_return_code(), 3);
}
